"""Pool: which device does what, now. It holds no queue: what doesn't start waits with the caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self

from gpu_pool.backend import Backend
from gpu_pool.crew import Crew, Patience
from gpu_pool.health import Backoff
from gpu_pool.seat import Seat
from gpu_pool.strategy import STRATEGIES
from gpu_pool.types import Device, DeviceChanged, Done, Event, Exited, Plan, PoolEvent, Run, Span, Task
from gpu_pool.wakeup import Wakeup


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
        patience = Patience(
            stall_s=stall_s,
            start_s=start_s,
            cancel_s=cancel_s,
            recycle_spans=recycle_spans,
            recycle_bytes=recycle_bytes,
            backoff=backoff or Backoff(),
        )
        self._backend = backend
        self._clock = clock
        self._crew = Crew(backend, patience, clock)
        self._wakeup = Wakeup()
        self._shown: dict[str, Device] = {}
        self._crew.tend()

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
        running = tuple(span for _, span in self._running(task.id))
        task = replace(task, running=running, todo=tuple(span for span in task.todo if span not in running))
        idle = [device for device in self.devices() if device.state == "idle" and device.kind == task.kind]
        return STRATEGIES[task.strategy](task, idle, waiting) if idle else None

    def start(self, plan: Plan) -> None:
        """Send a Run for each assignment.

        ValueError if a device isn't idle or is named twice, or (as a WireError) if the payload is too long or no JSON;
        nothing has started then.
        """
        seats = [self._crew[assignment.device] for assignment in plan.assignments]
        if busy := [seat.device for seat in seats if seat.phase != "idle" or seats.count(seat) > 1]:
            raise ValueError(f"not idle, or assigned twice: {', '.join(busy)}")
        task = plan.task
        for seat, assignment in zip(seats, plan.assignments, strict=True):
            span = assignment.span
            self._crew.start(seat, Run(task.id, span.start, span.stop, task.payload), task.model)

    def poll(self, timeout_s: float) -> list[PoolEvent]:
        """What has happened; waits for it until the time is up or wake() is called, whichever comes first."""
        until = self._clock() + timeout_s
        while True:
            events: list[PoolEvent] = [*self._listen(until), *self._crew.tend()]
            events += self._changes()
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
        return tuple(sorted({span for _, span in self._running(task_id)}))

    def cancel(self, task_id: str) -> None:
        """Each running span of the task ends as Failed(fault="cancelled"), within about cancel_s."""
        for seat, _ in self._running(task_id):
            self._crew.call_back(seat)

    def drain(self, device: str, reason: str = "set aside") -> None:
        """Let the device finish its span, end its worker and give it nothing more, until resume()."""
        self._crew.drain(self._crew[device], reason)

    def resume(self, device: str) -> None:
        """Take a drained or sick device back into service, now."""
        self._crew.resume(self._crew[device])

    def close(self, grace_s: float = 2.0) -> None:
        """Ask every worker to end, then kill what is left. Running spans are given up, and nothing more is reported."""
        self._crew.dismiss()
        until = self._clock() + grace_s
        while any(seat.phase != "down" for seat in self._crew) and (left := until - self._clock()) > 0:
            for device, message in self._backend.wait(left, self._wakeup.fileno()):
                if isinstance(message, Exited):
                    self._crew[device].enter("down")
            self._wakeup.lower_flag()
        self._backend.close()
        for seat in self._crew:
            seat.enter("down")
        self._wakeup.close()

    def _listen(self, until: float) -> Iterator[Event]:
        deadline = self._clock() if self._unreported() else min(until, self._crew.deadline)
        for device, message in self._backend.wait(max(0.0, deadline - self._clock()), self._wakeup.fileno()):
            if event := self._crew.hear(device, message):
                yield event
                if isinstance(event.message, Done):
                    self._end_race(event.message)

    def _end_race(self, won: Done) -> None:
        for seat, span in self._running(won.task):
            if span == Span(won.start, won.stop):
                self._crew.call_off(seat)

    def _running(self, task_id: str) -> list[tuple[Seat, Span]]:
        """One pair for each device that has a span of the task."""
        return [(seat, span) for seat in self._crew if seat.runs(task_id) and (span := seat.span)]

    def _snapshot(self, device: Device) -> Device:
        seat = self._crew[device.id]
        return replace(device, state=seat.state, reason=seat.reason, worker_pid=seat.pid, model=seat.model)

    def _unreported(self) -> list[Device]:
        """Devices that are not as they were last reported, memory figures aside."""
        return [device for device in self.devices() if self._shown.get(device.id) != replace(device, free_bytes=0)]

    def _changes(self) -> list[DeviceChanged]:
        changed = self._unreported()
        self._shown.update((device.id, replace(device, free_bytes=0)) for device in changed)
        return [DeviceChanged(device) for device in changed]
