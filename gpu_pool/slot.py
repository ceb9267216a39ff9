"""What the pool knows of one device and its worker.

Pure: the supervisor moves it from phase to phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from gpu_pool.backoff import BackoffState
from gpu_pool.memory import MemoryReservation
from gpu_pool.types import Device, DeviceState, Done, Exited, Failed, Fault, Progress, RunSpan, Span

MIB = 1 << 20
STATS = {"model", "load_s", "batch", "held_bytes"}
"""What a worker may say of itself; the rest is not kept."""
MAX_NAME_CHARS = 100
MAX_FIGURE = 1 << 50

Phase = Literal["down", "starting", "idle", "running", "cancelling", "stopping", "killing", "stuck"]
"""What the worker is doing, and what happens when the phase's deadline passes:

down         there is none                                  -> start one
starting     it opens its handler                           -> kill it
idle         it waits for work                                 (no deadline)
running      it runs a span; Progress moves the deadline    -> kill it: it is stalled
cancelling   it was asked to cancel its span                -> kill it
stopping     it was asked to end                            -> kill it
killing      SIGKILL was sent                               -> give it up
stuck        it was given up, and may end later                (no deadline)
"""

_STATES: dict[Phase, DeviceState] = {
    "down": "starting",
    "starting": "starting",
    "idle": "idle",
    "running": "busy",
    "cancelling": "busy",
    "stopping": "busy",
    "killing": "busy",
    "stuck": "sick",
}


@dataclass(frozen=True, slots=True)
class ExitReason:
    """Why a worker ends, in the words of the Failed that its span gets.

    `is_fault`: it counts against the device.
    """

    code: str
    message: str
    fault: Fault = "worker"
    is_fault: bool = True

    def to_failed(self, run: RunSpan, detail: str) -> Failed:
        """Return the end of the span that the worker had."""
        retry = self.fault == "worker"
        hint = "If it happens again, the worker's log shows what it was doing." if retry else ""
        return Failed(
            run.task, run.start, run.stop, self.code, self.message, hint, retry=retry, fault=self.fault, detail=detail
        )


CANCELLED = ExitReason("cancelled", "Cancelled.", fault="cancelled", is_fault=False)


def explain_exit(device: str, exited: Exited) -> ExitReason:
    """Return the reason of an exit that the pool didn't ask for."""
    if exited.out_of_memory:
        return ExitReason(
            "out_of_memory", f"The worker on {device} was killed because this machine ran out of memory (SIGKILL)."
        )
    if exited.signal:
        return ExitReason("worker_died", f"The worker on {device} was killed by {exited.signal}.")
    last_line = exited.log.rpartition("\n")[2].strip()[:300]
    output = f"; its last line was: {last_line}" if last_line else ""
    return ExitReason("worker_died", f"The worker on {device} ended by itself with exit code {exited.code}{output}.")


@dataclass(slots=True, eq=False)
class WorkerSlot:
    """One device and its worker. Times are the pool's clock.

    deadline_s      when the phase has lasted too long
    run             the span it has, from RunSpan until Done or Failed has been passed on
    is_abandoned    another device has finished the span first: its end isn't reported
    exit_reason     why the pool killed the worker
    ready_at_s      when the worker became ready, None before
    spans_ended     how many spans the worker has ended
    is_unloaded     the next worker loads no model before it has a span
    is_outdated     the worker is to be replaced as soon as it has no span
    drain_reason    why a person took the device out of service; "" if it is in service
    fault_reason    why the device can't be trusted until it is resumed; "" if it can
    lost_reason     why its card is gone; "" if it is present
    unfit_reason    why the machine that the device is in must not be used as it is; "" if it may
    blocked_reason  why no new span may start here though the card is present; "" if it may
    reservation     the worker's share of the card's memory
    stats           what the worker reports of the model it has loaded: "load_s", "batch"
    rss_bytes       resident memory of the worker at its last report, and after its first span
    """

    device: str
    card: str = ""
    phase: Phase = "down"
    deadline_s: float = -inf
    pid: int | None = None
    model: str = ""
    run: RunSpan | None = None
    is_abandoned: bool = False
    exit_reason: ExitReason | None = None
    ready_at_s: float | None = None
    spans_ended: int = 0
    is_unloaded: bool = False
    is_outdated: bool = False
    drain_reason: str = ""
    fault_reason: str = ""
    lost_reason: str = ""
    unfit_reason: str = ""
    blocked_reason: str = ""
    reservation: MemoryReservation = field(default_factory=MemoryReservation)
    stats: Mapping[str, Any] = field(default_factory=dict)
    rss_bytes: int = 0
    first_rss_bytes: int = 0
    backoff: BackoffState = field(default_factory=BackoffState)

    @property
    def span(self) -> Span | None:
        return Span(self.run.start, self.run.stop) if self.run else None

    @property
    def state(self) -> DeviceState:
        if self.lost_reason:
            return "lost"
        if self.phase == "down" and (self.drain_reason or self.fault_reason or self.backoff.sick):
            return "drained" if self.drain_reason else "sick"
        return _STATES[self.phase]

    @property
    def reason(self) -> str:
        """Why the device isn't in service, or gets no new span, or what its last fault was."""
        if self.lost_reason or self.state == "drained":
            return self.lost_reason or self.drain_reason
        if self.phase in ("idle", "running", "cancelling"):
            return self.blocked_reason
        if self.fault_reason and self.phase == "down":
            return self.fault_reason
        return self.exit_reason.message if self.exit_reason else self.backoff.reason

    @property
    def is_available(self) -> bool:
        """Whether it may get a span now."""
        return self.phase == "idle" and not (self.lost_reason or self.blocked_reason)

    @property
    def is_out_of_service(self) -> bool:
        """Whether it gets no span after its current one either, unless something changes."""
        return self.state in ("lost", "drained", "sick") or bool(self.blocked_reason)

    def enter(self, phase: Phase, deadline_s: float = inf) -> None:
        self.phase, self.deadline_s = phase, deadline_s

    def has_span_of(self, message: Progress | Done | Failed) -> bool:
        """Whether the message is about the span that runs here."""
        run = self.run
        return run is not None and (run.task, run.start, run.stop) == (message.task, message.start, message.stop)

    def is_running(self, task_id: str) -> bool:
        return self.run is not None and self.run.task == task_id and not self.is_abandoned

    def get_uptime_s(self, now_s: float) -> float:
        return 0.0 if self.ready_at_s is None else now_s - self.ready_at_s

    def end_span(self, now_s: float) -> None:
        self.run, self.is_abandoned = None, False
        self.reservation = self.reservation.expire(now_s)
        self.spans_ended += 1

    def clear(self) -> None:
        """Forget the worker and its memory, and let the next start when it may."""
        self.pid, self.model, self.ready_at_s, self.exit_reason, self.spans_ended = None, "", None, None, 0
        self.reservation, self.stats, self.rss_bytes, self.first_rss_bytes = MemoryReservation(), {}, 0, 0
        self.is_outdated = False
        rests = self.drain_reason or self.fault_reason or self.lost_reason
        self.enter("down", inf if rests else self.backoff.start_at_s)

    def update_stats(self, stats: Mapping[str, Any], now_s: float) -> None:
        """Take over what the worker reports of itself; what it doesn't mention stays."""
        self.stats = {**self.stats, **{name: stats[name] for name in STATS & stats.keys()}}
        self.model = read_name(self.stats, "model") or self.model
        if "held_bytes" in stats:
            self.reservation = self.reservation.report(read_int(stats, "held_bytes"), now_s)

    def to_device(self, device: Device) -> Device:
        """Return the device as the pool reports it; `device` is what the backend knows."""
        is_resting = self.state == "sick" and self.phase == "down" and not self.fault_reason
        return Device(  # not `replace`, which takes three times as long: this is called several times for each span
            id=device.id,
            kind=device.kind,
            name=device.name,
            total_bytes=device.total_bytes,
            free_bytes=device.free_bytes,
            state=self.state,
            reason=self.reason,
            worker_pid=self.pid,
            model=self.model,
            card=device.card,
            held_bytes=self.reservation.held_bytes,
            load_s=read_number(self.stats, "load_s"),
            batch=read_int(self.stats, "batch"),
            retry_at_s=self.backoff.start_at_s if is_resting else 0.0,
            read_at_s=device.read_at_s,
            node=device.node,
            temperature_c=device.temperature_c,
            load_percent=device.load_percent,
            power_w=device.power_w,
        )

    def describe_memory(self, device: Device) -> str:
        """Return a sentence about the worker's memory, now or at its last report."""
        parts = [f"{self.rss_bytes / MIB:.0f} MiB resident"] if self.rss_bytes else []
        if device.card:
            held = f"{self.reservation.held_bytes / MIB:.0f} MiB of {device.card}"
            parts.append(f"{held}, where {device.free_bytes / MIB:.0f} of {device.total_bytes / MIB:.0f} MiB were free")
        return f"The worker held {' and '.join(parts)}." if parts else ""


def read_number(stats: Mapping[str, Any], name: str) -> float:
    """Return a positive figure, or 0: stats come from a handler, which may send anything."""
    value = stats.get(name)
    return float(value) if isinstance(value, int | float) and 0 < value <= MAX_FIGURE else 0.0


def read_int(stats: Mapping[str, Any], name: str) -> int:
    """Return `read_number` without its fraction."""
    return int(read_number(stats, name))


def read_name(stats: Mapping[str, Any], name: str) -> str:
    """Return a name, or "": stats come from a handler, which may send anything."""
    value = stats.get(name)
    return value if isinstance(value, str) and len(value) <= MAX_NAME_CHARS and value.isprintable() else ""
