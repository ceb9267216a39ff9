"""The clocks of the daemon: one object that all read, so that a test moves the time in one place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SHARE = 0.01
"""The share of one core."""
FEW = 64
"""Work on so many entries may be done at any time, however slow the machine is just then."""


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


class Pace:
    """Work whose cost grows with the number of entries, done so rarely that it takes a small share of the time.

    `now_s` is monotonic seconds of the daemon's clock.
    """

    def __init__(self) -> None:
        self._due_s = 0.0

    def is_due(self, now_s: float) -> bool:
        return now_s >= self._due_s

    @contextmanager
    def measure(self, now_s: float, entries: int) -> Iterator[None]:
        """Do the work on so many entries in this block, and let it rest in proportion."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._due_s = now_s + (time.perf_counter() - began_s) / SHARE if entries > FEW else 0.0
