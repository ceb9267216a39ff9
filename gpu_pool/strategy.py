"""Strategies: pure functions from a task, the idle devices and how much else waits, to a plan or to "not now"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from gpu_pool.types import Assignment, Device, Plan, Span, Task

Strategy = Callable[[Task, Sequence[Device], int], Plan | None]
"""(task, idle devices of its kind, other jobs waiting for such a device) -> what starts now, or None."""

RACERS = 2


def preferred(task: Task, idle: Sequence[Device]) -> list[Device]:
    """Devices that have the task's model loaded first, then those with most free memory, then by id."""
    return sorted(idle, key=lambda device: (not _warm(device, task), -device.free_bytes, device.id))


def queue(task: Task, idle: Sequence[Device], waiting: int) -> Plan | None:  # noqa: ARG001  one signature for all
    """One device at a time takes the task's spans in order."""
    return None if task.running else _pair(task, task.todo, preferred(task, idle)[:1])


def split(task: Task, idle: Sequence[Device], waiting: int) -> Plan | None:  # noqa: ARG001
    """Every idle device takes the next span; called again whenever a device gets free, so that fast ones do more."""
    return _pair(task, task.todo, preferred(task, idle))


def race(task: Task, idle: Sequence[Device], waiting: int) -> Plan | None:
    """The next span on two devices at once, or on more that nobody else waits for; the first to finish wins.

    A span that started alone, because one device was idle, is joined by the next that gets free.
    """
    devices = preferred(task, idle)
    if not task.running:
        return _pair(task, task.todo[:1] * max(RACERS, len(devices) - waiting), devices)
    alone = [span for span, racers in sorted(Counter(task.running).items()) if racers < RACERS]
    return _pair(task, alone, devices)


def auto(task: Task, idle: Sequence[Device], waiting: int) -> Plan | None:
    """`split` over the devices that nobody else waits for; `queue` where there are none to spare."""
    spare = len(idle) - waiting
    return split(task, preferred(task, idle)[:spare], waiting) if spare > 0 else queue(task, idle, waiting)


STRATEGIES: dict[str, Strategy] = {"auto": auto, "queue": queue, "race": race, "split": split}


def _warm(device: Device, task: Task) -> bool:
    return bool(task.model) and device.model == task.model


def _pair(task: Task, spans: Sequence[Span], devices: Sequence[Device]) -> Plan | None:
    assignments = tuple(Assignment(span, device.id) for span, device in zip(spans, devices, strict=False))
    return Plan(task, assignments) if assignments else None
