"""Histories: a pool over the fake backend, and everything it reports.

No processes, no real time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from gpu_pool.local import cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import (
    Device,
    DeviceChanged,
    Done,
    Event,
    Exited,
    Failed,
    PoolEvent,
    Progress,
    RunSpan,
    Span,
    Task,
    grid,
)
from tests.gpu_pool.fake import Answer, Clock, FakeBackend, say_nothing

STALL_S, CANCEL_S, START_S, KILL_S = 20.0, 10.0, 300.0, 5.0


class History:
    """A pool over a fake backend, and its events so far."""

    open_pools: ClassVar[list[Pool]] = []

    def __init__(
        self, count: int = 1, answer: Answer = say_nothing, devices: Sequence[Device] = (), **options: Any
    ) -> None:
        self.clock = Clock()
        self.backend = FakeBackend(devices or cpu_devices(count), self.clock, answer)
        self.pool = Pool(self.backend, clock=self.clock, **{"stall_s": STALL_S, "cancel_s": CANCEL_S, **options})
        self.open_pools.append(self.pool)
        self.seen: list[PoolEvent] = []

    def wait(self, seconds: float) -> list[PoolEvent]:
        """Let time pass; return the events."""
        until_s, events = self.clock() + seconds, []
        while True:
            events += self.pool.poll(until_s - self.clock())
            if self.clock() >= until_s:
                self.seen += events
                return events

    def start(self, task: Task, waiting: int = 0) -> list[tuple[str, Span]]:
        plan = self.pool.plan(task, waiting)
        if plan is None:
            return []
        self.pool.start(plan)
        return [(assignment.device, assignment.span) for assignment in plan.assignments]

    def run(self, device: str = "cpu:0") -> RunSpan:
        """Return the last span that this device got."""
        return next(run for on, run in reversed(self.backend.runs()) if on == device)

    def device(self, name: str = "cpu:0") -> Device:
        return next(device for device in self.pool.devices() if device.id == name)


def make_task(units: int = 48, strategy: str = "queue", name: str = "task", **more: Any) -> Task:
    return Task(name, "cpu", grid(units), strategy=strategy, **more)


def list_ends(events: list[PoolEvent]) -> list[Done | Failed]:
    return [event.message for event in events if isinstance(event, Event) and not isinstance(event.message, Progress)]


def list_faults(events: list[PoolEvent]) -> list[tuple[str, str]]:
    return [(end.fault, end.code) for end in list_ends(events) if isinstance(end, Failed)]


def list_states(events: list[PoolEvent], device: str = "cpu:0") -> list[str]:
    return [event.device.state for event in events if isinstance(event, DeviceChanged) and event.device.id == device]


def start_busy(count: int = 1, **options: Any) -> History:
    """Return a history whose first device has just started the first span of a task."""
    history = History(count, **options)
    history.wait(1.0)
    history.start(make_task())
    history.wait(0.0)
    history.seen.clear()
    return history


def break_workers(history: History) -> None:
    """From now on, let workers die while they start."""
    history.backend.opening = lambda _, pid: (0.0, Exited(pid, code=1, log="ImportError: no module"))
    history.backend.kill("cpu:0")
