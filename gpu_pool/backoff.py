"""When a device that fails is tried again. Pure: the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """Faults in a row, since when the next worker may start (clock seconds), and what the last fault was."""

    faults: int = 0
    start_at: float = 0.0
    reason: str = ""
    sick: bool = False


@dataclass(frozen=True, slots=True)
class Backoff:
    """How patient we are with a device.

    A worker that lived longer than `quick_s` is replaced at once; after one that died sooner we wait `first_s`, doubled
    with every fault. After `sick_after` faults in a row the device is sick: it rests `sick_s`, doubled with every
    further fault up to `sick_max_s`.
    """

    quick_s: float = 1.0
    first_s: float = 0.1
    sick_after: int = 5
    sick_s: float = 30.0
    sick_max_s: float = 900.0

    def after_fault(self, health: Health, reason: str, now: float, lived_s: float) -> Health:
        """`lived_s`: how long the worker had been ready; 0 if it never was."""
        faults = health.faults + 1
        return Health(faults, now + self._pause(faults, lived_s), reason, sick=faults >= self.sick_after)

    def _pause(self, faults: int, lived_s: float) -> float:
        if faults >= self.sick_after:
            return _doubled(self.sick_s, faults - self.sick_after, self.sick_max_s)
        return _doubled(self.first_s, faults - 1, self.sick_s) if lived_s < self.quick_s else 0.0


def _doubled(first_s: float, times: int, most_s: float) -> float:
    return min(first_s * 2.0 ** min(times, 30), most_s)
