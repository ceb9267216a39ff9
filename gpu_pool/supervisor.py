"""Crew: the workers of a pool, each started, listened to, given up on and replaced. It knows spans, but no strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import inf

from gpu_pool.backend import Backend
from gpu_pool.backoff import Backoff, Health
from gpu_pool.slot import CANCELLED, ExitReason, Seat, explain_exit
from gpu_pool.types import (
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
class Patience:
    """How long a worker may take, in seconds, and when it has served long enough.

    stall_s        to say something while it runs a span
    start_s        to get ready
    cancel_s       to end a cancelled span
    stop_s         to end politely
    kill_s         to be gone after SIGKILL
    recycle_spans  spans after which it is replaced (0: never)
    recycle_bytes  growth of its resident memory since its first span above which it is replaced (0: never)
    """

    stall_s: float
    start_s: float = 300.0
    cancel_s: float = 10.0
    stop_s: float = 5.0
    kill_s: float = 5.0
    recycle_spans: int = 0
    recycle_bytes: int = 0
    backoff: Backoff = field(default_factory=Backoff)


class Crew:
    def __init__(self, backend: Backend, patience: Patience, clock: Callable[[], float]) -> None:
        self._backend, self._patience, self._clock = backend, patience, clock
        self._seats: dict[str, Seat] = {}
        self._devices: dict[str, Device] = {}
        self._held: list[tuple[str, RunSpan]] = []
        self._footprint = 0
        self.look()

    def __getitem__(self, device: str) -> Seat:
        return self._seats[device]

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats.values())

    @property
    def deadline(self) -> float:
        """When tend() is next needed."""
        return min((seat.deadline for seat in self), default=inf)

    @property
    def devices(self) -> Iterable[Device]:
        """As the backend knows them, since the last look()."""
        return self._devices.values()

    def look(self) -> None:
        """Learn what became of the devices: new ones, lost ones, and the memory of those that are here."""
        for device in self._backend.devices():
            seat = self._seats.setdefault(device.id, Seat(device.id, device.card))
            self._devices[device.id] = device
            if device.card:
                seat.stake = seat.stake.read(device.held_bytes, device.read_at_s)
            lost = device.reason if device.state == "lost" else ""
            seat.silent = "" if lost else device.reason
            if lost and not seat.lost:
                self._lose(seat, lost)
            elif seat.lost and not lost:
                self._find(seat)

    def _lose(self, seat: Seat, reason: str) -> None:
        seat.lost = reason
        if seat.phase == "down":
            seat.vacate()
        elif not seat.doom:
            self._condemn(seat, ExitReason("device_lost", f"{seat.device} was lost: {reason}", blame=False))

    def _find(self, seat: Seat) -> None:
        seat.lost = ""
        if seat.phase == "down":
            seat.vacate()

    def start(self, seat: Seat, run: RunSpan, model: str, memory_bytes: int, *, hold: bool) -> None:
        """Give an idle worker a span. WireError, and nothing changed, if the payload can't be sent; with `hold` it is
        `release` that finds that."""
        if hold:
            self._held.append((seat.device, run))
        else:
            self._backend.send(seat.device, run)
        seat.stake = seat.stake.promise(memory_bytes if seat.card else 0)
        seat.run = run
        seat.model = model or seat.model
        seat.enter("running", self._in(self._patience.stall_s))

    def release(self) -> None:
        """Tell the workers of the spans that were held. WireError if a payload can't be sent."""
        held, self._held = self._held, []
        for device, run in held:
            self._backend.send(device, run)

    def call_back(self, seat: Seat) -> None:
        """Have a running span given up."""
        if seat.run and seat.phase == "running":
            self._backend.send(seat.device, Cancel(seat.run.task))
            seat.enter("cancelling", self._in(self._patience.cancel_s))
        elif seat.doom:  # it is being killed already, and the span ends as the caller expects
            seat.doom = replace(seat.doom, code="cancelled", fault="cancelled")

    def call_off(self, seat: Seat) -> None:
        """Have a running span given up of which nobody wants to hear any more."""
        seat.called_off = True
        self.call_back(seat)

    def drain(self, seat: Seat, reason: str) -> None:
        """No more spans for this device; its worker ends after the one it has."""
        seat.drained = reason
        if seat.phase == "idle":
            self._retire(seat)
        elif seat.phase == "down":
            seat.vacate()

    def resume(self, seat: Seat) -> None:
        """Back into service; a sick device is tried again at once."""
        seat.drained = ""
        seat.health = Health()
        if seat.phase == "down":
            seat.vacate()

    def dismiss(self) -> None:
        """Ask everyone to end; those who haven't begun lose nothing by being killed."""
        for seat in self:
            if seat.phase == "starting":
                self._backend.kill(seat.device)
            elif seat.phase != "down":
                self._backend.send(seat.device, Stop())

    def tend(self) -> list[Event]:
        """Do what is overdue."""
        overdue = [seat for seat in self if seat.deadline <= self._clock()]
        return [event for seat in overdue if (event := self._lose_patience(seat))]

    def hear(self, device: str, message: WorkerReport | ProtocolError | Exited) -> Event | None:
        """What this means for the device's span, if anything."""
        seat = self._seats[device]
        match message:
            case Exited():
                return self._bury(seat, message)
            case _ if seat.doom:
                pass
            case ProtocolError(reason):
                self._nonsense(seat, reason)
            case Ready():
                self._welcome(seat, message)
            case Progress():
                return self._progress(seat, message)
            case Done() | Failed():
                return self._ended(seat, message)
        return None

    def _welcome(self, seat: Seat, ready: Ready) -> None:
        if seat.phase != "starting":
            self._nonsense(seat, "a second Ready")
        elif ready.device not in (seat.device, seat.card):
            said = f"The worker for {seat.device} found itself on {ready.device}."
            self._condemn(seat, ExitReason("worker_misplaced", said))
        else:
            seat.pid, seat.ready_at = ready.pid, self._clock()
            seat.learn(ready.facts, self._clock())
            self._note_footprint(seat)
            self._settle(seat)

    def _note_footprint(self, seat: Seat) -> None:
        """What one worker has loaded for a start, others are about to load."""
        self._footprint = max(self._footprint, seat.stake.said)
        for other in self:
            if other.card and other.phase == "starting":
                other.stake = other.stake.promise(self._footprint)
        seat.stake = seat.stake.end(self._clock())

    def _progress(self, seat: Seat, progress: Progress) -> Event | None:
        if not seat.has(progress):
            self._nonsense(seat, "progress of a span it doesn't have")
        elif seat.phase == "running":
            if progress.held_bytes >= 0:
                seat.learn({"held_bytes": progress.held_bytes}, self._clock())
            seat.deadline = self._in(self._patience.stall_s)
            return Event(seat.device, progress)
        return None

    def _ended(self, seat: Seat, end: Done | Failed) -> Event | None:
        if seat.run is None or not seat.has(end):
            self._nonsense(seat, "the end of a span it doesn't have")
            return None
        if isinstance(end, Failed) and end.fault == "cancelled" and seat.phase != "cancelling":
            self._nonsense(seat, "a cancelled span that nobody cancelled")
            return None
        if isinstance(end, Done):
            seat.rss_bytes = end.rss_bytes
            seat.first_rss_bytes = seat.first_rss_bytes or end.rss_bytes
            seat.learn(end.facts, self._clock())
        elif end.fault == "worker":
            end = replace(end, detail=self._detail(seat, "", end.detail))
        event = self._end_span(seat, CANCELLED.failed(seat.run, "") if seat.phase == "cancelling" else end)
        self._judge(seat, end)
        return event

    def _judge(self, seat: Seat, end: Done | Failed) -> None:
        """What a worker's own account of a span's end says about the worker."""
        if isinstance(end, Done) or end.fault == "job":
            seat.health = Health()
        elif end.code not in ("out_of_memory", "cancelled"):
            self._blame(seat, end.message)
        self._settle(seat, worn=self._worn(seat, end))

    def _worn(self, seat: Seat, end: Done | Failed) -> bool:
        if isinstance(end, Failed) and end.fault == "worker":
            return True  # out of memory, or a lost context: only a new process gives everything back
        grown = seat.rss_bytes - seat.first_rss_bytes if seat.first_rss_bytes else 0
        return 0 < self._patience.recycle_bytes < grown or 0 < self._patience.recycle_spans <= seat.served

    def _end_span(self, seat: Seat, end: Done | Failed) -> Event | None:
        wanted = not seat.called_off
        seat.release(self._clock())
        return Event(seat.device, end) if wanted else None

    def _settle(self, seat: Seat, *, worn: bool = False) -> None:
        """The worker has nothing to do now."""
        if worn or seat.drained:
            self._retire(seat)
        else:
            seat.enter("idle")

    def _retire(self, seat: Seat) -> None:
        self._backend.send(seat.device, Stop())
        seat.enter("leaving", self._in(self._patience.stop_s))

    def _nonsense(self, seat: Seat, reason: str) -> None:
        said = f"The worker on {seat.device} said something that makes no sense: {reason}."
        self._condemn(seat, ExitReason("worker_nonsense", said))

    def _condemn(self, seat: Seat, doom: ExitReason) -> None:
        seat.doom = replace(doom, code="cancelled", fault="cancelled") if seat.phase == "cancelling" else doom
        self._backend.kill(seat.device)
        seat.enter("dying", self._in(self._patience.kill_s))

    def _bury(self, seat: Seat, exited: Exited) -> Event | None:
        asked = seat.phase == "leaving"
        doom = CANCELLED if seat.phase == "cancelling" else seat.doom or explain_exit(seat.device, exited)
        seat.rss_bytes = exited.peak_bytes or seat.rss_bytes
        detail = self._detail(seat, doom.message, exited.log)
        event = self._end_span(seat, doom.failed(seat.run, detail)) if seat.run else None
        if doom.blame and not asked:
            self._blame(seat, doom.message)
        seat.vacate()
        return event

    def _blame(self, seat: Seat, reason: str) -> None:
        now = self._clock()
        seat.health = self._patience.backoff.after_fault(seat.health, reason, now, seat.lived_s(now))

    def _lose_patience(self, seat: Seat) -> Event | None:
        match seat.phase:
            case "down":
                seat.enter("starting", self._in(self._patience.start_s))
                seat.stake = seat.stake.promise(self._footprint if seat.card else 0)
                self._backend.spawn(seat.device)
            case "starting":
                self._stalled(seat, f"wasn't ready within {self._patience.start_s:g} s")
            case "running":
                self._stalled(seat, f"said nothing for {self._patience.stall_s:g} s")
            case "cancelling":
                self._condemn(seat, CANCELLED)
            case "leaving":
                self._condemn(seat, replace(CANCELLED, message="It did not end when asked."))
            case "dying":
                return self._give_up(seat)
        return None

    def _stalled(self, seat: Seat, what: str) -> None:
        self._condemn(seat, ExitReason("worker_stalled", f"The worker on {seat.device} {what}."))

    def _give_up(self, seat: Seat) -> Event | None:
        """Not even SIGKILL ends it: it hangs inside a driver. Its span goes elsewhere, the device waits for its end."""
        doom = seat.doom or CANCELLED
        seat.doom = replace(doom, message=f"{doom.message} Its process {seat.pid} does not die.")
        seat.enter("stuck")
        detail = self._detail(seat, seat.doom.message, "")
        return self._end_span(seat, doom.failed(seat.run, detail)) if seat.run else None

    def _detail(self, seat: Seat, cause: str, log: str) -> str:
        """For the ledger: what happened, who held how much memory, and the last lines of the log."""
        return "\n".join(part for part in (cause, seat.memory(self._devices[seat.device]), log) if part)

    def _in(self, seconds: float) -> float:
        return self._clock() + seconds
