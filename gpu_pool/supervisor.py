"""Supervisor: starts, watches, kills and replaces the workers of a pool.

It knows spans, but no strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import inf

from gpu_pool.backend import Backend
from gpu_pool.backoff import Backoff, BackoffState
from gpu_pool.slot import CANCELLED, ExitReason, WorkerSlot, explain_exit
from gpu_pool.types import (
    OUTDATED,
    Cancel,
    Device,
    Done,
    Event,
    Exited,
    Failed,
    Progress,
    ProtocolError,
    Ready,
    RunSpan,
    Stop,
    WorkerReport,
)


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """How long a worker may take, in seconds, and when it is replaced.

    stall_s        between two reports while it runs a span
    start_s        to become ready
    cancel_s       to end a cancelled span
    stop_s         to end when asked
    kill_s         to be gone after SIGKILL
    recycle_spans  spans after which it is replaced (0: never)
    recycle_bytes  growth of its resident memory since its first span above which it is replaced
                   (0: never)
    unload_s       idle time after which a worker on a card gives its memory back (0: never)
    backoff        pauses before a worker is replaced that failed
    """

    stall_s: float
    start_s: float = 300.0
    cancel_s: float = 10.0
    stop_s: float = 5.0
    kill_s: float = 5.0
    recycle_spans: int = 0
    recycle_bytes: int = 0
    unload_s: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)


RefusalRule = Callable[[RunSpan, Done | Failed], str]
"""Returns why the end of a span that was asked for can't be believed, "" if it can."""


class Supervisor:
    """The workers of a pool, one in each slot. `clock` returns seconds.

    A worker whose report `refuse` gives a reason for is killed, and its span has failed.
    """

    def __init__(self, backend: Backend, limits: WorkerLimits, clock: Callable[[], float], refuse: RefusalRule) -> None:
        self._backend, self._limits, self._clock, self._refuse = backend, limits, clock, refuse
        self._slots: dict[str, WorkerSlot] = {}
        self._devices: dict[str, Device] = {}
        self._held: list[tuple[str, RunSpan]] = []
        self._footprint_bytes = 0
        self.refresh_devices()

    def __getitem__(self, device_id: str) -> WorkerSlot:
        return self._slots[device_id]

    def __iter__(self) -> Iterator[WorkerSlot]:
        return iter(self._slots.values())

    @property
    def deadline_s(self) -> float:
        """When check_deadlines() is next needed."""
        return min((slot.deadline_s for slot in self), default=inf)

    @property
    def devices(self) -> Iterable[Device]:
        """As the backend knew them at the last refresh_devices()."""
        return self._devices.values()

    def refresh_devices(self) -> None:
        """Ask the backend for its devices: new ones, lost ones, and the memory of the others."""
        for device in self._backend.devices():
            slot = self._slots.setdefault(device.id, WorkerSlot(device.id, device.card))
            self._devices[device.id] = device
            if device.card:
                slot.reservation = slot.reservation.update(device.held_bytes, device.read_at_s)
            lost = device.reason if device.state == "lost" else ""
            unfit = device.reason if device.state == "sick" else ""
            if unfit != slot.unfit_reason:
                slot.unfit_reason = unfit
                self.condemn(slot, unfit)
            slot.blocked_reason = "" if lost else device.reason
            if lost and not slot.lost_reason:
                self._on_lost(slot, lost)
            elif slot.lost_reason and not lost:
                self._on_return(slot)

    def _on_lost(self, slot: WorkerSlot, reason: str) -> None:
        slot.lost_reason = reason
        if slot.phase == "down":
            slot.clear()
        elif not slot.exit_reason:
            self._terminate(slot, ExitReason("device_lost", f"{slot.device} was lost: {reason}", is_fault=False))

    def _on_return(self, slot: WorkerSlot) -> None:
        slot.lost_reason = ""
        if slot.phase == "down":
            slot.clear()

    def start_span(self, slot: WorkerSlot, run: RunSpan, model: str, memory_bytes: int, *, hold: bool) -> None:
        """Give an idle worker a span; with `hold` it is sent by send_held().

        WireError, and nothing changed, if the payload can't be sent; with `hold`, send_held()
        raises it.
        """
        if hold:
            self._held.append((slot.device, run))
        else:
            self._backend.send(slot.device, run)
        slot.reservation = slot.reservation.promise(memory_bytes if slot.card else 0)
        slot.run, slot.is_unloaded = run, False
        slot.model = model or slot.model
        slot.enter("running", self._get_deadline_s(self._limits.stall_s))

    def send_held(self) -> None:
        """Send the spans that were held. WireError if a payload can't be sent."""
        held, self._held = self._held, []
        for device_id, run in held:
            self._backend.send(device_id, run)

    def cancel(self, slot: WorkerSlot) -> None:
        """Ask the worker to give up its span."""
        if slot.run and slot.phase == "running":
            self._backend.send(slot.device, Cancel(slot.run.task))
            slot.enter("cancelling", self._get_deadline_s(self._limits.cancel_s))
        elif slot.exit_reason:  # it is being killed already, and the span ends as the caller expects
            slot.exit_reason = replace(slot.exit_reason, code="cancelled", fault="cancelled")

    def abandon(self, slot: WorkerSlot) -> None:
        """Cancel a span whose end isn't to be reported."""
        slot.is_abandoned = True
        self.cancel(slot)

    def drain(self, slot: WorkerSlot, reason: str) -> None:
        """Start no more spans on this device; its worker ends after the current one."""
        slot.drain_reason = reason
        self._rest(slot)

    def condemn(self, slot: WorkerSlot, reason: str) -> None:
        """Do the same to a device that can't be trusted: it is sick until it is resumed, or `reason` is ""."""
        slot.fault_reason = reason
        if reason or slot.phase == "down":
            self._rest(slot)

    def _rest(self, slot: WorkerSlot) -> None:
        if slot.phase == "idle":
            self._stop(slot)
        elif slot.phase == "down":
            slot.clear()

    def resume(self, slot: WorkerSlot) -> None:
        """Take the device back into service; a sick one is tried again at once."""
        slot.drain_reason = slot.fault_reason = ""
        slot.backoff = BackoffState()
        if slot.phase == "down":
            slot.clear()

    def unload(self, slot: WorkerSlot) -> bool:
        """Replace an idle worker that has loaded a model by one that has not; False for any other.

        Only the end of a process gives all of a card's memory back.
        """
        if slot.phase != "idle" or not slot.model:
            return False
        slot.is_unloaded = True
        self._stop(slot)
        return True

    def replace_all(self) -> None:
        """Start new workers in the place of those that run, each as soon as it has no span."""
        for slot in self:
            slot.is_outdated = slot.phase != "down"
            if slot.phase == "idle":
                self._stop(slot)

    def stop_all(self) -> None:
        """Ask all workers to end; kill those that are starting, which have nothing to lose."""
        for slot in self:
            if slot.phase == "starting":
                self._backend.kill(slot.device)
            elif slot.phase != "down":
                self._backend.send(slot.device, Stop())

    def check_deadlines(self) -> list[Event]:
        """Start, kill or give up workers that are overdue; return the spans that ended."""
        overdue = [slot for slot in self if slot.deadline_s <= self._clock()]
        return [event for slot in overdue if (event := self._on_deadline(slot))]

    def on_message(self, device_id: str, message: WorkerReport | ProtocolError | Exited) -> Event | None:
        """Move the device's slot on; return what the message means for its span, if anything."""
        slot = self._slots[device_id]
        match message:
            case Exited():
                return self._reap(slot, message)
            case _ if slot.exit_reason:
                pass
            case ProtocolError(reason):
                self._on_protocol_error(slot, reason)
            case Ready():
                self._on_ready(slot, message)
            case Progress():
                return self._on_progress(slot, message)
            case Done() | Failed():
                return self._on_span_end(slot, message)
        return None

    def _on_ready(self, slot: WorkerSlot, ready: Ready) -> None:
        if slot.phase != "starting":
            self._on_protocol_error(slot, "a second Ready")
        elif ready.device not in (slot.device, slot.card):
            message = f"The worker for {slot.device} runs on {ready.device} instead."
            self._terminate(slot, ExitReason("worker_misplaced", message))
        else:
            slot.pid, slot.ready_at_s = ready.pid, self._clock()
            slot.update_stats(ready.stats, self._clock())
            self._update_footprint(slot)
            self._on_free(slot)

    def _update_footprint(self, slot: WorkerSlot) -> None:
        """Expect of each starting worker what the largest has loaded until it was ready."""
        self._footprint_bytes = max(self._footprint_bytes, slot.reservation.reported_bytes)
        for other in self:
            if other.card and other.phase == "starting" and not other.is_unloaded:
                other.reservation = other.reservation.promise(self._footprint_bytes)
        slot.reservation = slot.reservation.expire(self._clock())

    def _on_progress(self, slot: WorkerSlot, progress: Progress) -> Event | None:
        if not slot.has_span_of(progress):
            self._on_protocol_error(slot, "progress of a span it doesn't have")
        elif not 0 <= progress.units_done <= progress.stop - progress.start:
            self._on_protocol_error(slot, f"{progress.units_done} units of a span are done")
        elif slot.phase == "running":
            if progress.held_bytes >= 0:
                slot.update_stats({"held_bytes": progress.held_bytes}, self._clock())
            slot.deadline_s = self._get_deadline_s(self._limits.stall_s)
            return Event(slot.device, progress)
        return None

    def _on_span_end(self, slot: WorkerSlot, end: Done | Failed) -> Event | None:
        if slot.run is None or not slot.has_span_of(end):
            self._on_protocol_error(slot, "the end of a span it doesn't have")
            return None
        if isinstance(end, Failed) and end.fault == "cancelled" and slot.phase != "cancelling":
            self._on_protocol_error(slot, "the end of a cancelled span, which wasn't cancelled")
            return None
        if reason := self._refuse(slot.run, end):
            self._on_protocol_error(slot, reason)
            return None
        if isinstance(end, Done):
            slot.rss_bytes = end.rss_bytes
            slot.first_rss_bytes = slot.first_rss_bytes or end.rss_bytes
            slot.update_stats(end.stats, self._clock())
        elif end.fault == "worker":
            end = replace(end, detail=self._describe(slot, "", end.detail))
        event = self._end_span(slot, CANCELLED.to_failed(slot.run, "") if slot.phase == "cancelling" else end)
        self._update_backoff(slot, end)
        self._on_free(slot, recycle=self._should_recycle(slot, end))
        return event

    def _update_backoff(self, slot: WorkerSlot, end: Done | Failed) -> None:
        if isinstance(end, Done) or end.fault == "job":
            slot.backoff = BackoffState()
        elif end.code not in ("out_of_memory", "cancelled", OUTDATED):
            self._add_fault(slot, end.message)

    def _should_recycle(self, slot: WorkerSlot, end: Done | Failed) -> bool:
        if isinstance(end, Failed) and end.fault == "worker":
            return True  # out of memory, or a lost context: only a new process frees everything
        growth_bytes = slot.rss_bytes - slot.first_rss_bytes if slot.first_rss_bytes else 0
        return 0 < self._limits.recycle_bytes < growth_bytes or 0 < self._limits.recycle_spans <= slot.spans_ended

    def _end_span(self, slot: WorkerSlot, end: Done | Failed) -> Event | None:
        is_abandoned = slot.is_abandoned
        slot.end_span(self._clock())
        return None if is_abandoned else Event(slot.device, end)

    def _on_free(self, slot: WorkerSlot, *, recycle: bool = False) -> None:
        """Keep a worker that has no span for the next one, or end it."""
        if recycle or slot.is_outdated or slot.drain_reason or slot.fault_reason:
            self._stop(slot)
        else:
            may_unload = slot.card and slot.model and self._limits.unload_s
            slot.enter("idle", self._get_deadline_s(self._limits.unload_s) if may_unload else inf)

    def _stop(self, slot: WorkerSlot) -> None:
        self._backend.send(slot.device, Stop())
        slot.enter("stopping", self._get_deadline_s(self._limits.stop_s))

    def _on_protocol_error(self, slot: WorkerSlot, reason: str) -> None:
        message = f"The worker on {slot.device} sent an invalid message: {reason}."
        self._terminate(slot, ExitReason("worker_nonsense", message))

    def _terminate(self, slot: WorkerSlot, reason: ExitReason) -> None:
        is_cancelled = slot.phase == "cancelling"
        slot.exit_reason = replace(reason, code="cancelled", fault="cancelled") if is_cancelled else reason
        self._backend.kill(slot.device)
        slot.enter("killing", self._get_deadline_s(self._limits.kill_s))

    def _reap(self, slot: WorkerSlot, exited: Exited) -> Event | None:
        was_asked = slot.phase == "stopping"
        reason = CANCELLED if slot.phase == "cancelling" else slot.exit_reason or explain_exit(slot.device, exited)
        slot.rss_bytes = exited.peak_bytes or slot.rss_bytes
        detail = self._describe(slot, reason.message, exited.log)
        is_excused = slot.run is not None and not slot.card  # a processor is sound: files break what decodes them
        event = self._end_span(slot, reason.to_failed(slot.run, detail)) if slot.run else None
        if reason.is_fault and not was_asked and not is_excused:
            self._add_fault(slot, reason.message)
        slot.clear()
        return event

    def _add_fault(self, slot: WorkerSlot, reason: str) -> None:
        now_s = self._clock()
        slot.backoff = self._limits.backoff.add_fault(slot.backoff, reason, now_s, slot.get_uptime_s(now_s))

    def _on_deadline(self, slot: WorkerSlot) -> Event | None:
        match slot.phase:
            case "down":
                slot.enter("starting", self._get_deadline_s(self._limits.start_s))
                loads = slot.card and not slot.is_unloaded
                slot.reservation = slot.reservation.promise(self._footprint_bytes if loads else 0)
                self._backend.spawn(slot.device, unloaded=slot.is_unloaded)
            case "idle":
                self.unload(slot)
            case "starting":
                self._on_stall(slot, f"wasn't ready within {self._limits.start_s:g} s")
            case "running":
                self._on_stall(slot, f"sent nothing for {self._limits.stall_s:g} s")
            case "cancelling":
                self._terminate(slot, CANCELLED)
            case "stopping":
                self._terminate(slot, replace(CANCELLED, message="It did not end when asked."))
            case "killing":
                return self._give_up(slot)
        return None

    def _on_stall(self, slot: WorkerSlot, what: str) -> None:
        self._terminate(slot, ExitReason("worker_stalled", f"The worker on {slot.device} {what}."))

    def _give_up(self, slot: WorkerSlot) -> Event | None:
        """End the span of a worker that hangs in a driver and survives SIGKILL."""
        reason = slot.exit_reason or CANCELLED
        slot.exit_reason = replace(reason, message=f"{reason.message} Its process {slot.pid} does not die.")
        slot.enter("stuck")
        detail = self._describe(slot, slot.exit_reason.message, "")
        return self._end_span(slot, reason.to_failed(slot.run, detail)) if slot.run else None

    def _describe(self, slot: WorkerSlot, cause: str, log: str) -> str:
        """Return the detail for the ledger: the cause, the memory, the last lines of the log."""
        return "\n".join(part for part in (cause, slot.describe_memory(self._devices[slot.device]), log) if part)

    def _get_deadline_s(self, seconds: float) -> float:
        return self._clock() + seconds
