"""The clocks of the daemon: one object that all read, so that a test moves the time in one place."""

from __future__ import annotations

import time


class Clock:
    """Monotonic seconds for durations, milliseconds since 1970 for rows of the ledger."""

    def now_s(self) -> float:
        return time.monotonic()

    def at_ms(self) -> int:
        return time.time_ns() // 1_000_000
