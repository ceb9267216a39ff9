"""Strategies: pure functions from a task, idle devices and waiting jobs to a plan or None."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from gpu_pool.types import Assignment, Device, Plan, Span, Task

Strategy = Callable[[Task, Sequence[Device], int], Plan | None]
"""(task, idle devices of its kind, other jobs that wait for one) -> what starts now, or None."""

RACERS = 2


def rank_devices(task: Task, idle: Sequence[Device]) -> list[Device]:
    """Sort devices: those with the task's model first, then by free memory, then by id."""
    return sorted(idle, key=lambda device: (not _has_model(device, task), -device.free_bytes, device.id))


def queue(task: Task, idle: Sequence[Device], waiting: int) -> Plan | None:  # noqa: ARG001  one signature for all
    """Run the task's spans in order, on one device at a time."""
    return None if task.running else _assign(task, task.todo, rank_devices(task, idle)[:1])


def split(task: Task, idle: Sequence[Device], waiting: int) -> Plan | None:  # noqa: ARG001
    """Run a span on every idle device. Called at each end of a span, so that fast ones do more."""
    return _assign(task, task.todo, rank_devices(task, idle))


def race(task: Task, idle: Sequence[Device], waiting: int) -> Plan | None:
    """Run the next span on two devices, or more if no job waits for them; the first wins.

    A span that started alone, because one device was idle, is joined by the next device that
    becomes idle.
    """
    devices = rank_devices(task, idle)
    if not task.running:
        return _assign(task, task.todo[:1] * max(RACERS, len(devices) - waiting), devices)
    alone = [span for span, racers in sorted(Counter(task.running).items()) if racers < RACERS]
    return _assign(task, alone, devices)


def auto(task: Task, idle: Sequence[Device], waiting: int) -> Plan | None:
    """`split` over the devices that no other job waits for.

    `queue` where there are none to spare.
    """
    spare = len(idle) - waiting
    return split(task, rank_devices(task, idle)[:spare], waiting) if spare > 0 else queue(task, idle, waiting)


STRATEGIES: dict[str, Strategy] = {"auto": auto, "queue": queue, "race": race, "split": split}


def _has_model(device: Device, task: Task) -> bool:
    return bool(task.model) and device.model == task.model


def _assign(task: Task, spans: Sequence[Span], devices: Sequence[Device]) -> Plan | None:
    assignments = tuple(Assignment(span, device.id) for span, device in zip(spans, devices, strict=False))
    return Plan(task, assignments) if assignments else None
