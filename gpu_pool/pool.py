"""Pool: places the spans of tasks on devices.

It holds no queue: a task that can't start waits with the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from types import TracebackType
from typing import Self

from gpu_pool.backend import Backend
from gpu_pool.backoff import Backoff
from gpu_pool.memory import MemoryBudget
from gpu_pool.slot import WorkerSlot
from gpu_pool.strategy import STRATEGIES, rank_devices
from gpu_pool.supervisor import RefusalRule, Supervisor, WorkerLimits
from gpu_pool.types import (
    Device,
    DeviceChanged,
    Done,
    Event,
    Exited,
    Failed,
    Plan,
    PoolEvent,
    RunSpan,
    Span,
    Task,
)
from gpu_pool.wait_reasons import OomBackoff, wait_reason
from gpu_pool.wakeup import Wakeup

FREE_GRAIN_BYTES = 64 << 20
"""A smaller change of free memory is not reported."""
GAUGE_GRAINS = {"temperature_c": 3, "load_percent": 10, "power_w": 10}
GAUGES_S = 5.0
"""A change of a gauge by its grain is reported, so many seconds after the last report at the earliest."""


class Pool:
    """Not thread-safe, except for wake().

    With a LocalBackend, construct and poll it in the main thread.

    stall_s        a running worker that reports nothing for so long is killed
    start_s        a worker that isn't ready after so long is killed
    cancel_s       a worker that goes on with a cancelled span for so long is killed
    recycle_spans  a worker is replaced after so many spans (0: never)
    recycle_bytes  or when its resident memory has grown by so much since its first span (0: never)
    unload_s       idle time after which a worker on a card gives its memory back (0: never)
    reserve_bytes  memory of each card that is left to other programs
    find_trouble   returns why no card can be used though there is one, "" without trouble
    find_driver    returns the version of the cards' driver, "" without one
    list_troubles  returns why other machines can't be used, "" for those that can, by their names
    backoff        pauses before a worker is replaced that failed
    clock          returns seconds; every time of the pool is one of its
    refuse         returns why the end of a span can't be believed: its worker is killed then
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
        unload_s: float = 0.0,
        reserve_bytes: int = 0,
        backoff: Backoff | None = None,
        find_trouble: Callable[[], str] = str,
        find_driver: Callable[[], str] = str,
        list_troubles: Callable[[], dict[str, str]] = dict,
        clock: Callable[[], float] = time.monotonic,
        refuse: RefusalRule = lambda _run, _end: "",
    ) -> None:
        limits = WorkerLimits(
            stall_s=stall_s,
            start_s=start_s,
            cancel_s=cancel_s,
            recycle_spans=recycle_spans,
            recycle_bytes=recycle_bytes,
            unload_s=unload_s,
            backoff=backoff or Backoff(),
        )
        self._backend = backend
        self._clock = clock
        self._find_trouble, self._find_driver, self._list_troubles = find_trouble, find_driver, list_troubles
        self._supervisor = Supervisor(backend, limits, clock, refuse)
        self._wakeup = Wakeup()
        self._reserve_bytes = reserve_bytes
        self._oom_backoffs: dict[str, OomBackoff] = {}
        self._reported: dict[str, Device] = {}
        self._supervisor.check_deadlines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def devices(self) -> list[Device]:
        """Return all devices, lost ones too; devices are added, never removed."""
        return [self._supervisor[device.id].to_device(device) for device in self._supervisor.devices]

    def plan(self, task: Task, waiting: int) -> Plan | None:
        """Return what of `task` can start now, or None.

        `waiting`: how many other jobs wait for a device of this kind. Uses only devices on which
        the memory that it needs is neither taken nor promised. ValueError for a strategy that
        doesn't exist.
        """
        if task.strategy not in STRATEGIES:
            raise ValueError(f"no strategy is called {task.strategy!r}; there are {', '.join(STRATEGIES)}")
        if not any(self._find_idle(task)):
            return None
        running = tuple(span for _, span in self._find_running(task.id))
        task = replace(task, running=running, todo=tuple(span for span in task.todo if span not in running))
        candidates = self._find_candidates(task)
        return STRATEGIES[task.strategy](task, candidates, waiting) if candidates else None

    def has_idle(self, task: Task) -> bool:
        """Whether a device could start a span of the task now, if it needs no memory of a card."""
        return any(self._find_idle(task))

    def wait_reason(self, task: Task) -> str:
        """Return why no device can take a span of the task, as a sentence.

        "" if one can, now or when it has finished its current span.
        """
        devices = [device for device in self._supervisor.devices if task.can_run_on(device)]
        slots = {device.id: self._supervisor[device.id] for device in devices}
        backoff = self._oom_backoffs.get(task.id)
        return wait_reason(task, devices, slots, self._get_memory_budget(), backoff, self._clock())

    @property
    def driver_trouble(self) -> str:
        """Why no card can be used though this machine has one, and what to do; "" without trouble."""
        return self._find_trouble()

    @property
    def node_troubles(self) -> dict[str, str]:
        """Why other machines can't be used, "" for those that can, by their names."""
        return self._list_troubles()

    @property
    def driver_version(self) -> str:
        """The version of the cards' driver, "" without one."""
        return self._find_driver()

    def open_bytes(self) -> dict[str, int]:
        """Return what each device's worker may still take of its card beyond what it holds."""
        return {slot.device: slot.reservation.open_bytes for slot in self._supervisor}

    def start(self, plan: Plan, *, hold: bool = False) -> None:
        """Send a RunSpan for each assignment; with `hold`, release() sends them, and comes next.

        ValueError, and nothing has started, if a device isn't idle or is named twice, or if the
        memory has been promised to others since the plan was made. WireError, likewise, if the
        payload is no JSON; with `hold` it is release() that raises it.
        """
        slots = [self._supervisor[assignment.device] for assignment in plan.assignments]
        if busy := [slot.device for slot in slots if not slot.is_available or slots.count(slot) > 1]:
            raise ValueError(f"not idle, or assigned twice: {', '.join(busy)}")
        task = plan.task
        if task.memory_bytes:
            self._check_memory(slots, task.memory_bytes)
        for slot, assignment in zip(slots, plan.assignments, strict=True):
            span = assignment.span
            run = RunSpan(task.id, span.start, span.stop, task.payload)
            self._supervisor.start_span(slot, run, task.model, task.memory_bytes, hold=hold)

    def release(self) -> None:
        """Send the spans that were held. WireError if a payload is no JSON."""
        self._supervisor.send_held()

    def poll(self, timeout_s: float) -> list[PoolEvent]:
        """Return the events since the last call.

        Waits for one until the time is up or wake() is called, whichever comes first.
        """
        until_s = self._clock() + timeout_s
        while True:
            events: list[PoolEvent] = [*self._receive(until_s), *self._supervisor.check_deadlines()]
            events += self._report_devices()
            if self._wakeup.lower_flag() or events or self._clock() >= until_s:
                return events

    def wake(self) -> None:
        """Make poll() return, now or at its next call. For any thread or signal handler."""
        self._wakeup.raise_flag()

    @property
    def wakeup_fd(self) -> int:
        """For signal.set_wakeup_fd: a signal ends poll()."""
        return self._wakeup.signal_fd

    def running_spans(self, task_id: str) -> tuple[Span, ...]:
        """Return the task's spans that run on some device, each once, in order."""
        return tuple(sorted({span for _, span in self._find_running(task_id)}))

    def cancel(self, task_id: str) -> None:
        """End the running spans of the task as Failed(fault="cancelled"), in about cancel_s."""
        for slot, _ in self._find_running(task_id):
            self._supervisor.cancel(slot)

    def drain(self, device: str, reason: str = "set aside") -> None:
        """Let the device finish its span, end its worker, and start no other until resume().

        KeyError for an unknown device.
        """
        self._supervisor.drain(self._supervisor[device], reason)

    def condemn(self, device: str, reason: str) -> None:
        """Do the same to a device that can't be trusted: it is sick until resume(), or a `reason` of "".

        KeyError for an unknown device.
        """
        self._supervisor.condemn(self._supervisor[device], reason)

    def resume(self, device: str) -> None:
        """Take a drained or sick device back into service, now. KeyError for an unknown device."""
        self._supervisor.resume(self._supervisor[device])

    def has_model(self, device: str, model: str) -> bool:
        """Whether the device's worker has loaded that model. KeyError for an unknown device."""
        return self._supervisor[device].model == model

    def unload(self, device: str) -> bool:
        """Give the memory of an idle worker's model back; False where it has no model or a span.

        KeyError for an unknown device.
        """
        return self._supervisor.unload(self._supervisor[device])

    def replace_workers(self) -> None:
        """Start new workers in the place of those that run, each as soon as it has no span."""
        self._supervisor.replace_all()

    def close(self, grace_s: float = 2.0) -> None:
        """Ask every worker to end, then kill the rest.

        Running spans are given up, and nothing more is reported.
        """
        self._supervisor.stop_all()
        until_s = self._clock() + grace_s
        while any(slot.phase != "down" for slot in self._supervisor) and (left_s := until_s - self._clock()) > 0:
            for device_id, message in self._backend.wait(left_s, self._wakeup.fileno()):
                if isinstance(message, Exited):
                    self._supervisor[device_id].enter("down")
            self._wakeup.lower_flag()
        self._backend.close()
        for slot in self._supervisor:
            slot.enter("down")
        self._wakeup.close()

    def _check_memory(self, slots: list[WorkerSlot], size_bytes: int) -> None:
        budget = self._get_memory_budget()
        for slot in slots:
            if not budget.can_fit(slot.device, size_bytes):
                raise ValueError(f"not enough memory is left on {slot.device}")
            budget.promise(slot.device, size_bytes)

    def _receive(self, until_s: float) -> Iterator[Event]:
        has_news = any(device.state != "busy" for device in self._find_unreported())  # the caller knows what it started
        deadline_s = self._clock() if has_news else min(until_s, self._supervisor.deadline_s)
        messages = self._backend.wait(max(0.0, deadline_s - self._clock()), self._wakeup.fileno())
        self._supervisor.refresh_devices()
        for device_id, message in messages:
            if event := self._supervisor.on_message(device_id, message):
                yield event
                if isinstance(event.message, Done):
                    self._end_race(event.message)
                elif isinstance(event.message, Failed) and event.message.code == "out_of_memory":
                    self._begin_oom_backoff(device_id, event.message.task)

    def _find_candidates(self, task: Task) -> list[Device]:
        """Return the idle devices on which spans of the task fit, all at once."""
        backoff = self._oom_backoffs.get(task.id)
        min_bytes = backoff.min_bytes(self._clock()) if backoff else -inf
        budget, idle = self._get_memory_budget(), list(self._find_idle(task))
        return budget.find_candidates(task.memory_bytes, min_bytes, idle, lambda devices: rank_devices(task, devices))

    def _find_idle(self, task: Task) -> Iterator[str]:
        devices = (device for device in self._supervisor.devices if task.can_run_on(device))
        return (device.id for device in devices if self._supervisor[device.id].is_available)

    def _get_memory_budget(self) -> MemoryBudget:
        reservations = {slot.device: slot.reservation for slot in self._supervisor}
        return MemoryBudget(self.devices(), reservations, self._reserve_bytes)

    def _begin_oom_backoff(self, device_id: str, task_id: str) -> None:
        """Have the task wait for more memory than it ran out of, for a while."""
        now_s = self._clock()
        self._oom_backoffs = {name: backoff for name, backoff in self._oom_backoffs.items() if now_s < backoff.until_s}
        if self._supervisor[device_id].card:
            available_bytes = self._get_memory_budget().available_bytes(device_id)
            self._oom_backoffs[task_id] = OomBackoff.begin(device_id, available_bytes, now_s)

    def _end_race(self, won: Done) -> None:
        for slot, span in self._find_running(won.task):
            if span == Span(won.start, won.stop):
                self._supervisor.abandon(slot)

    def _find_running(self, task_id: str) -> list[tuple[WorkerSlot, Span]]:
        """Return one pair for each device that has a span of the task."""
        return [(slot, span) for slot in self._supervisor if slot.is_running(task_id) and (span := slot.span)]

    def _find_unreported(self) -> list[Device]:
        """Return the devices that have changed since they were last reported."""
        return [device for device in self.devices() if _has_changed(self._reported.get(device.id), device)]

    def _report_devices(self) -> list[DeviceChanged]:
        changed = self._find_unreported()
        self._reported.update((device.id, device) for device in changed)
        return [DeviceChanged(device) for device in changed]


def _has_changed(before: Device | None, now: Device) -> bool:
    if before is None:
        return True
    if before == now:
        return False
    moved_bytes = max(abs(before.free_bytes - now.free_bytes), abs(before.held_bytes - now.held_bytes))
    figures = {name: getattr(now, name) for name in (*GAUGE_GRAINS, "free_bytes", "held_bytes", "read_at_s")}
    return moved_bytes >= FREE_GRAIN_BYTES or _have_gauges_moved(before, now) or replace(before, **figures) != now


def _have_gauges_moved(before: Device, now: Device) -> bool:
    """Whether a gauge of the card is another, seconds after the last report."""
    if now.read_at_s - before.read_at_s < GAUGES_S:
        return False
    for name, grain in GAUGE_GRAINS.items():
        old, new = getattr(before, name), getattr(now, name)
        if old != new and (old is None or new is None or abs(new - old) >= grain):
            return True
    return False
