"""Pool: which device does what, now. It holds no queue: what doesn't start waits with the caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from types import TracebackType
from typing import Self

from gpu_pool.backend import Backend
from gpu_pool.backoff import Backoff
from gpu_pool.memory import Accounts
from gpu_pool.slot import Seat
from gpu_pool.strategy import STRATEGIES, preferred
from gpu_pool.supervisor import Crew, Patience
from gpu_pool.types import Device, DeviceChanged, Done, Event, Exited, Failed, Plan, PoolEvent, RunSpan, Span, Task
from gpu_pool.wait_reasons import Setback, wait_reason
from gpu_pool.wakeup import Wakeup

FREE_GRAIN_BYTES = 64 << 20
"""A change of free memory that is smaller is not reported."""


class Pool:
    """Not thread-safe, except for wake(). With a LocalBackend, construct and poll it in the main thread.

    stall_s        a running worker that says nothing for so long is killed
    start_s        a worker that isn't ready after so long is killed
    cancel_s       a cancelled span that goes on for so long has its worker killed
    recycle_spans  a worker is replaced after so many spans (0: never)
    recycle_bytes  or when its resident memory has grown by so much since its first span (0: never)
    reserve_bytes  memory of each card that is left to others
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
        reserve_bytes: int = 0,
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
        self._reserve_bytes = reserve_bytes
        self._setbacks: dict[str, Setback] = {}
        self._shown: dict[str, Device] = {}
        self._crew.tend()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def devices(self) -> list[Device]:
        """All of them, lost ones too; more may come, none goes."""
        return [self._crew[device.id].shown(device) for device in self._crew.devices]

    def plan(self, task: Task, waiting: int) -> Plan | None:
        """What of `task` starts now, or None; `waiting`: how many other jobs wait for a device of this kind.

        Only devices are used where the memory that it needs is neither taken nor promised. ValueError for a strategy
        that doesn't exist.
        """
        if task.strategy not in STRATEGIES:
            raise ValueError(f"no strategy is called {task.strategy!r}; there are {', '.join(STRATEGIES)}")
        if not any(self._free(task)):
            return None
        running = tuple(span for _, span in self._running(task.id))
        task = replace(task, running=running, todo=tuple(span for span in task.todo if span not in running))
        idle = self._offers(task)
        return STRATEGIES[task.strategy](task, idle, waiting) if idle else None

    def wait_reason(self, task: Task) -> str:
        """Why no device can take a span of the task, as a sentence for people.

        "" if one can, or will as soon as it has finished what it does now.
        """
        devices = [device for device in self._crew.devices if device.kind == task.kind]
        seats = {device.id: self._crew[device.id] for device in devices}
        return wait_reason(task, devices, seats, self._accounts(), self._setbacks.get(task.id), self._clock())

    def promised_bytes(self) -> dict[str, int]:
        """What each device's worker may still take of its card: promised, and not allocated as far as is known."""
        return {seat.device: seat.stake.open for seat in self._crew}

    def start(self, plan: Plan, *, hold: bool = False) -> None:
        """Send a RunSpan for each assignment; with `hold` they are sent by `release`, which has to come next.

        ValueError if a device isn't idle or is named twice, if the memory has been promised to others since the plan
        was made, or (as a WireError) if the payload is too long or no JSON; nothing has started then. With `hold` it
        is `release` that finds the latter.
        """
        seats = [self._crew[assignment.device] for assignment in plan.assignments]
        if busy := [seat.device for seat in seats if not seat.free or seats.count(seat) > 1]:
            raise ValueError(f"not idle, or assigned twice: {', '.join(busy)}")
        task, accounts = plan.task, self._accounts()
        for seat in seats:
            if not accounts.fits(seat.device, task.memory_bytes):
                raise ValueError(f"not enough memory is left on {seat.device}")
            accounts.promise(seat.device, task.memory_bytes)
        for seat, assignment in zip(seats, plan.assignments, strict=True):
            span = assignment.span
            run = RunSpan(task.id, span.start, span.stop, task.payload)
            self._crew.start(seat, run, task.model, task.memory_bytes, hold=hold)

    def release(self) -> None:
        """Send what was held."""
        self._crew.release()

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

    def running_spans(self, task_id: str) -> tuple[Span, ...]:
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
        news = any(device.state != "busy" for device in self._unreported())  # who starts spans knows of these
        deadline = self._clock() if news else min(until, self._crew.deadline)
        heard = self._backend.wait(max(0.0, deadline - self._clock()), self._wakeup.fileno())
        self._crew.look()
        for device, message in heard:
            if event := self._crew.hear(device, message):
                yield event
                if isinstance(event.message, Done):
                    self._end_race(event.message)
                elif isinstance(event.message, Failed) and event.message.code == "out_of_memory":
                    self._set_back(device, event.message.task)

    def _offers(self, task: Task) -> list[Device]:
        """Idle devices on which spans of the task fit, all at once."""
        now = self._clock()
        idle = list(self._free(task))
        setback = self._setbacks.get(task.id)
        floor = setback.floor(now) if setback else -inf
        return self._accounts().offers(task.memory_bytes, floor, idle, lambda devices: preferred(task, devices))

    def _free(self, task: Task) -> Iterator[str]:
        devices = self._crew.devices
        return (device.id for device in devices if device.kind == task.kind and self._crew[device.id].free)

    def _accounts(self) -> Accounts:
        stakes = {seat.device: seat.stake for seat in self._crew}
        return Accounts(self.devices(), stakes, self._reserve_bytes)

    def _set_back(self, device: str, task_id: str) -> None:
        """Where memory ran out, it isn't tried again until there is more, or a while has passed."""
        now = self._clock()
        self._setbacks = {name: setback for name, setback in self._setbacks.items() if now < setback.until}
        if self._crew[device].card:
            self._setbacks[task_id] = Setback.after(device, self._accounts().room(device), now)

    def _end_race(self, won: Done) -> None:
        for seat, span in self._running(won.task):
            if span == Span(won.start, won.stop):
                self._crew.call_off(seat)

    def _running(self, task_id: str) -> list[tuple[Seat, Span]]:
        """One pair for each device that has a span of the task."""
        return [(seat, span) for seat in self._crew if seat.runs(task_id) and (span := seat.span)]

    def _unreported(self) -> list[Device]:
        """Devices that are not as they were last reported."""
        return [device for device in self.devices() if _differ(self._shown.get(device.id), device)]

    def _changes(self) -> list[DeviceChanged]:
        changed = self._unreported()
        self._shown.update((device.id, device) for device in changed)
        return [DeviceChanged(device) for device in changed]


def _differ(before: Device | None, now: Device) -> bool:
    if before is None:
        return True
    if before == now:
        return False
    moved = max(abs(before.free_bytes - now.free_bytes), abs(before.held_bytes - now.held_bytes))
    as_now = replace(before, free_bytes=now.free_bytes, held_bytes=now.held_bytes, read_at_s=now.read_at_s)
    return moved >= FREE_GRAIN_BYTES or as_now != now
