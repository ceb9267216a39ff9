"""What the pool notes about one device. Pure: the pool moves it from phase to phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from gpu_pool.backoff import Health
from gpu_pool.memory import Stake
from gpu_pool.types import Device, DeviceState, Done, Exited, Failed, Fault, Progress, RunSpan, Span

MIB = 1 << 20

Phase = Literal["down", "starting", "idle", "running", "cancelling", "leaving", "dying", "stuck"]
"""What the worker is doing, and what happens when the phase's deadline passes:

down         there is none                             -> start one
starting     it opens its handler                      -> kill it
idle         it waits for work                            (no deadline)
running      it runs a span; every Progress is a delay -> kill it: it is stalled
cancelling   it was told to stop its span              -> kill it
leaving      it was told to end                        -> kill it
dying        SIGKILL was sent                          -> give it up
stuck        it was given up, and may yet die             (no deadline)
"""

_STATES: dict[Phase, DeviceState] = {
    "down": "starting",
    "starting": "starting",
    "idle": "idle",
    "running": "busy",
    "cancelling": "busy",
    "leaving": "busy",
    "dying": "busy",
    "stuck": "sick",
}


@dataclass(frozen=True, slots=True)
class ExitReason:
    """Why a worker ends, in the words of the Failed that its span gets. `blame`: it counts against the device."""

    code: str
    message: str
    fault: Fault = "worker"
    blame: bool = True

    def failed(self, run: RunSpan, detail: str) -> Failed:
        retry = self.fault == "worker"
        hint = "If it happens again, the worker's log shows what it was doing." if retry else ""
        return Failed(
            run.task, run.start, run.stop, self.code, self.message, hint, retry=retry, fault=self.fault, detail=detail
        )


CANCELLED = ExitReason("cancelled", "Cancelled.", fault="cancelled", blame=False)


def explain_exit(device: str, exited: Exited) -> ExitReason:
    """What to say of a worker that ended unasked."""
    if exited.out_of_memory:
        return ExitReason(
            "out_of_memory", f"The worker on {device} was killed because this machine ran out of memory (SIGKILL)."
        )
    if exited.signal:
        return ExitReason("worker_died", f"The worker on {device} was killed by {exited.signal}.")
    last_line = exited.log.rpartition("\n")[2].strip()[:300]
    said = f" after saying: {last_line}" if last_line else ""
    return ExitReason("worker_died", f"The worker on {device} ended by itself with exit code {exited.code}{said}.")


@dataclass(slots=True, eq=False)
class Seat:
    """A device's place in the pool.

    deadline    clock time at which the phase has lasted too long
    run         the span it has, from RunSpan until Done or Failed has been passed on
    called_off  somebody else has finished the span first: nobody wants to hear of it any more
    doom        why we killed the worker
    ready_at    when the worker got ready, None before
    served      spans the worker has ended
    drained     why the device is set aside by a person; "" if it is not
    lost        why its card is out of reach; "" if it is not
    silent      why nothing new may be placed here though the card isn't lost; "" if it may
    stake       what the worker has to do with the card's memory
    facts       what the worker says of the model it has loaded: "load_s", "batch"
    rss_bytes   resident memory of the worker when it last said, and after its first span
    """

    device: str
    card: str = ""
    phase: Phase = "down"
    deadline: float = -inf
    pid: int | None = None
    model: str = ""
    run: RunSpan | None = None
    called_off: bool = False
    doom: ExitReason | None = None
    ready_at: float | None = None
    served: int = 0
    drained: str = ""
    lost: str = ""
    silent: str = ""
    stake: Stake = field(default_factory=Stake)
    facts: Mapping[str, Any] = field(default_factory=dict)
    rss_bytes: int = 0
    first_rss_bytes: int = 0
    health: Health = field(default_factory=Health)

    @property
    def span(self) -> Span | None:
        return Span(self.run.start, self.run.stop) if self.run else None

    @property
    def state(self) -> DeviceState:
        if self.lost:
            return "lost"
        if self.phase == "down" and (self.drained or self.health.sick):
            return "drained" if self.drained else "sick"
        return _STATES[self.phase]

    @property
    def reason(self) -> str:
        if self.lost or self.state == "drained":
            return self.lost or self.drained
        return self.silent if self.phase in ("idle", "running", "cancelling") else self._doom_or_last_fault()

    @property
    def free(self) -> bool:
        """Whether it may get a span now."""
        return self.phase == "idle" and not (self.lost or self.silent)

    @property
    def out_of_service(self) -> bool:
        """Whether it will get no span, however long one waits, unless something changes."""
        return self.state in ("lost", "drained", "sick") or bool(self.silent)

    def enter(self, phase: Phase, deadline: float = inf) -> None:
        self.phase, self.deadline = phase, deadline

    def has(self, message: Progress | Done | Failed) -> bool:
        """Whether the message is about the span that runs here."""
        run = self.run
        return run is not None and (run.task, run.start, run.stop) == (message.task, message.start, message.stop)

    def runs(self, task: str) -> bool:
        return self.run is not None and self.run.task == task and not self.called_off

    def lived_s(self, now: float) -> float:
        return 0.0 if self.ready_at is None else now - self.ready_at

    def release(self, now: float) -> None:
        """The span has ended."""
        self.run, self.called_off = None, False
        self.stake = self.stake.end(now)
        self.served += 1

    def vacate(self) -> None:
        """The worker is gone, and its memory with it; another is due when card, person and health allow."""
        self.pid, self.model, self.ready_at, self.doom, self.served = None, "", None, None, 0
        self.stake, self.facts, self.rss_bytes, self.first_rss_bytes = Stake(), {}, 0, 0
        self.enter("down", inf if self.drained or self.lost else self.health.start_at)

    def learn(self, facts: Mapping[str, Any], now: float) -> None:
        """What the worker says of itself; what it doesn't mention stays."""
        self.facts = {**self.facts, **facts}
        self.model = str(self.facts.get("model", "")) or self.model
        if "held_bytes" in facts:
            self.stake = self.stake.say(amount(facts, "held_bytes"), now)

    def shown(self, device: Device) -> Device:
        """The device as the pool reports it; `device` is what the backend knows."""
        resting = self.state == "sick" and self.phase == "down"
        return Device(  # not `replace`, which takes three times as long: this is asked several times for each span
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
            held_bytes=self.stake.held,
            load_s=number(self.facts, "load_s"),
            batch=amount(self.facts, "batch"),
            retry_at_s=self.health.start_at if resting else 0.0,
            read_at_s=device.read_at_s,
        )

    def memory(self, device: Device) -> str:
        """A sentence about memory as it is now, or was when the worker was last heard of."""
        told = [f"{self.rss_bytes / MIB:.0f} MiB resident"] if self.rss_bytes else []
        if device.card:
            held = f"{self.stake.held / MIB:.0f} MiB of {device.card}"
            told.append(f"{held}, where {device.free_bytes / MIB:.0f} of {device.total_bytes / MIB:.0f} MiB were free")
        return f"The worker held {' and '.join(told)}." if told else ""

    def _doom_or_last_fault(self) -> str:
        return self.doom.message if self.doom else self.health.reason


def number(facts: Mapping[str, Any], name: str) -> float:
    """A worker's figure, or 0 if it is none: facts come from a handler, which may say anything."""
    value = facts.get(name)
    return float(value) if isinstance(value, int | float) and 0 < value < 2**63 else 0.0


def amount(facts: Mapping[str, Any], name: str) -> int:
    return int(number(facts, name))
