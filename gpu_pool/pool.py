"""Pool: which device does what, and what happens when a worker doesn't. It holds no queue: what doesn't start now, waits
with the caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from gpu_pool.health import Backoff, Health
from gpu_pool.seat import CANCELLED, Doom, Seat, cause_of_death
from gpu_pool.strategy import STRATEGIES
from gpu_pool.types import (
    Cancel,
    Device,
    DeviceChanged,
    Done,
    Down,
    Event,
    Exited,
    Failed,
    Heard,
    Nonsense,
    Plan,
    PoolEvent,
    Progress,
    Ready,
    Run,
    Span,
    Stop,
    Task,
    Up,
)
from gpu_pool.wakeup import Wakeup

STOP_S = 5.0
KILL_S = 5.0


class Backend(Protocol):
    """Where workers live. Nothing here raises because of a worker: its end is an Exited, heard exactly once and last."""

    def devices(self) -> Sequence[Device]:
        """The devices workers can be spawned on, always the same ids; memory figures may change."""
        ...

    def spawn(self, device: str) -> None:
        """Start a worker; Ready follows, or Exited. The device has none now."""
        ...

    def send(self, device: str, message: Down) -> None:
        """Pass a message to the worker without blocking; WireError if it can't be one. Without a worker, nothing."""
        ...

    def kill(self, device: str) -> None:
        """SIGKILL the worker and what it started; Exited follows. Without a worker, nothing."""
        ...

    def wait(self, timeout_s: float, wakeup_fd: int) -> list[Heard]:
        """What was heard, in order for each device; returns early when `wakeup_fd` is readable, without reading it."""
        ...

    def close(self) -> None:
        """Kill and forget everything; the backend is of no use afterwards."""
        ...


class Pool:
    """Not thread-safe, except for wake(). With a LocalBackend, construct and poll it in the main thread.

    stall_s        a running worker that says nothing for so long is killed
    start_s        a worker that isn't ready after so long is killed
    cancel_s       a cancelled span that goes on for so long has its worker killed
    recycle_spans  a worker is replaced after so many spans (0: never)
    recycle_bytes  or when its resident memory after a span exceeds this (0: never)
    """

    def __init__(
        self,
        backend: Backend,
        *,
        stall_s: float,
        start_s: float = 300.0,
        cancel_s: float = 10.0,
        recycle_spans: int = 0,
        recycle_bytes: int = 0,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._stall_s, self._start_s, self._cancel_s = stall_s, start_s, cancel_s
        self._recycle_spans, self._recycle_bytes = recycle_spans, recycle_bytes
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._wakeup = Wakeup()
        self._events: list[PoolEvent] = []
        self._seats = {device.id: Seat(device.id) for device in backend.devices()}
        self._tend()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def devices(self) -> list[Device]:
        return [self._snapshot(device) for device in self._backend.devices()]

    def plan(self, task: Task, waiting: int) -> Plan | None:
        """What of `task` starts now, or None; `waiting`: how many other jobs wait for a device of this kind.

        ValueError for a strategy that doesn't exist.
        """
        if task.strategy not in STRATEGIES:
            raise ValueError(f"no strategy is called {task.strategy!r}; there are {', '.join(STRATEGIES)}")
        running = tuple(span for seat in self._running(task.id) if (span := seat.span))
        task = replace(task, running=running, todo=tuple(span for span in task.todo if span not in running))
        idle = [device for device in self.devices() if device.state == "idle" and device.kind == task.kind]
        return STRATEGIES[task.strategy](task, idle, waiting) if idle else None

    def start(self, plan: Plan) -> None:
        """Send a Run for each assignment. ValueError, and nothing started, if a device isn't idle or a message too long."""
        busy = [a.device for a in plan.assignments if self._seats[a.device].phase != "idle"]
        if busy:
            raise ValueError(f"not idle: {', '.join(busy)}")
        for assignment in plan.assignments:
            self._start(self._seats[assignment.device], plan.task, assignment.span)

    def poll(self, timeout_s: float) -> list[PoolEvent]:
        """What has happened; waits for it until the time is up or wake() is called, whichever comes first."""
        until = self._clock() + timeout_s
        while True:
            for device, message in self._backend.wait(self._patience(until), self._wakeup.fileno()):
                self._hear(self._seats[device], message)
            self._tend()
            events = self._take_events()
            if self._wakeup.lower_flag() or events or self._clock() >= until:
                return events

    def wake(self) -> None:
        """Make poll() return, now or the next time. From any thread or signal handler."""
        self._wakeup.raise_flag()

    @property
    def wakeup_fd(self) -> int:
        """For signal.set_wakeup_fd: a signal ends poll()."""
        return self._wakeup.signal_fd

    def running(self, task_id: str) -> tuple[Span, ...]:
        """The task's spans that run somewhere, each once, in order."""
        return tuple(sorted({span for seat in self._running(task_id) if (span := seat.span)}))

    def cancel(self, task_id: str) -> None:
        """Each running span of the task ends as Failed(fault="cancelled") within about cancel_s."""
        for seat in self._running(task_id):
            if seat.phase == "running":
                self._call_back(seat)

    def drain(self, device: str, reason: str = "set aside") -> None:
        """Let the device finish its span, end its worker and give it nothing more, until resume()."""
        seat = self._seats[device]
        seat.drained = reason
        if seat.phase == "idle":
            self._retire(seat)
        elif seat.phase == "down":
            seat.enter("down")

    def resume(self, device: str) -> None:
        """Take a drained or sick device back into service, now."""
        seat = self._seats[device]
        seat.drained = ""
        if seat.phase == "down":
            seat.health = Health()
            seat.vacate()

    def close(self, grace_s: float = 2.0) -> None:
        """Ask every worker to end, then kill what is left. Running spans are given up, and nothing more is reported."""
        for seat in self._seats.values():
            self._dismiss(seat)
        until = self._clock() + grace_s
        while self._workers() and (left := until - self._clock()) > 0:
            for device, message in self._backend.wait(left, self._wakeup.fileno()):
                if isinstance(message, Exited):
                    self._seats[device].enter("down")
            self._wakeup.lower_flag()
        self._backend.close()
        self._wakeup.close()
