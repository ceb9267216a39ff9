"""When a device that fails is tried again. Pure: the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffState:
    """The faults of one device.

    faults      in a row
    start_at_s  clock time from which the next worker may start
    reason      what the last fault was
    sick        whether the device is out of service until then
    """

    faults: int = 0
    start_at_s: float = 0.0
    reason: str = ""
    sick: bool = False


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a device pauses after a fault.

    A worker that lived longer than `quick_s` is replaced at once. After one that died sooner the
    pause is `first_s`, doubled with every fault. After `sick_after` faults in a row the device is
    sick: it pauses for `sick_s`, doubled with every further fault up to `sick_max_s`.
    """

    quick_s: float = 1.0
    first_s: float = 0.1
    sick_after: int = 5
    sick_s: float = 30.0
    sick_max_s: float = 900.0

    def add_fault(self, state: BackoffState, reason: str, now_s: float, uptime_s: float) -> BackoffState:
        """Return the state after one more fault.

        `uptime_s`: how long the worker had been ready; 0 if it never was.
        """
        faults = state.faults + 1
        return BackoffState(faults, now_s + self._pause_s(faults, uptime_s), reason, sick=faults >= self.sick_after)

    def _pause_s(self, faults: int, uptime_s: float) -> float:
        if faults >= self.sick_after:
            return _double(self.sick_s, faults - self.sick_after, self.sick_max_s)
        return _double(self.first_s, faults - 1, self.sick_s) if uptime_s < self.quick_s else 0.0


def _double(first_s: float, times: int, max_s: float) -> float:
    return min(first_s * 2.0 ** min(times, 30), max_s)
