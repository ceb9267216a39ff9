"""The clocks of the daemon: one object that all read, so that a test moves the time in one place."""

from __future__ import annotations

import time
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock:
    """Monotonic seconds for durations, milliseconds since 1970 for rows of the ledger."""

    def now_s(self) -> float:
        return time.monotonic()

    def at_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def boot_ms(self) -> int:
        """Return the milliseconds since the machine was started, in which it may have slept; no one can set them."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def boot_id(self) -> str:
        """Return what names this start of the machine, "" where the system has no name for it."""
        try:
            return BOOT_ID.read_text().strip()
        except OSError:
            return ""
