"""A clock of the daemon that a test moves."""

from __future__ import annotations

from agent.clock import Clock
from tests.gpu_pool.fake import Clock as PoolClock

START_MS = 1_700_000_000_000


class FakeClock(Clock, PoolClock):
    """`now`: monotonic seconds; milliseconds since 1970 go with it. The pool takes it as its clock, too."""

    def __init__(self, start_ms: int = START_MS) -> None:
        super().__init__()
        self.start_ms, self.uptime_ms, self.boot = start_ms, 1_000_000, "boot-1"

    def now_s(self) -> float:
        return self.now

    def at_ms(self) -> int:
        return self.start_ms + round(1000 * self.now)

    def boot_ms(self) -> int:
        return self.uptime_ms + round(1000 * self.now)

    def boot_id(self) -> str:
        return self.boot

    def set_calendar(self, by_s: float) -> None:
        """Set the calendar forward or back; no time passes."""
        self.start_ms += round(1000 * by_s)
