"""One node as the daemon sees it: its devices and workers, over a link that may break and come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any

from gpu_pool.cluster.courier import Courier
from gpu_pool.cluster.link import Link, OpenLink
from gpu_pool.cluster.messages import (
    MAX_NODE_LINE_BYTES,
    Absent,
    Beat,
    Broken,
    Ended,
    Figures,
    FromNode,
    Heard,
    Hello,
    Kill,
    Made,
    MessageReader,
    Pass,
    Piece,
    Refused,
    Spawn,
    Start,
    ToNode,
    Wants,
    decode_from_node,
    encode_piece,
)
from gpu_pool.slot import CANCELLED
from gpu_pool.types import (
    Cancel,
    Device,
    DeviceKind,
    Done,
    Exited,
    Failed,
    Progress,
    ProtocolError,
    Ready,
    RunSpan,
    WorkerCommand,
    WorkerMessage,
)
from gpu_pool.walls import Walls
from gpu_pool.wire import WireError, decode_report, encode, encode_any

MAX_DEVICES, MAX_NAME_CHARS, MAX_BYTES = 1024, 200, 1 << 50
"""What a node may say of itself; one that says more is not ours."""
READS, READS_S = 16, 0.05
"""Of one link in a row, and for how long, so that a node that says much does not keep the others waiting."""
RECHECK_S = 60.0
MAX_RECHECKS = 6
"""How often in a row that time is doubled for a node that lies."""
ABSENT_S = 600.0
PIECES = 4
"""Of files that are sent in a row, for the same reason as READS."""


@dataclass(frozen=True, slots=True)
class NodeTimes:
    """Seconds: between two signs of life, without one until a node is lost, until its first word, and between two
    attempts to reach it. A node ends its workers after `fence_s` without a word of ours, before it is lost to us."""

    beat_s: float = 1.0
    fence_s: float = 8.0
    lost_s: float = 10.0
    first_s: float = 60.0
    retry_s: float = 2.0


class Node:
    """A machine of the cluster.

    name          begins the names of its devices: "box2/GPU-..."
    open_link     opens a link to its agent
    make_start    returns what the agent is asked for
    facts         what must be equal there
    choose_walls  returns what a worker of a kind may do; None: anything
    courier       takes files there and back; None: the node sees those of this machine

    Its devices are added when it is first reached, and are lost while it is not. Nothing raises because of a node.
    """

    def __init__(
        self,
        name: str,
        open_link: OpenLink,
        make_start: Callable[[], Start],
        *,
        facts: Mapping[str, Any],
        times: NodeTimes | None = None,
        choose_walls: Callable[[DeviceKind], Walls | None] = lambda _: None,
        courier: Courier | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._open_link, self._make_start, self._facts = open_link, make_start, facts
        self._times, self._choose_walls, self._clock = times or NodeTimes(), choose_walls, clock
        self._courier, self._lies = courier, 0
        self._link: Link | None = None
        self._reader = make_reader()
        self._devices: dict[str, Device] = {}
        self._workers: dict[str, int] = {}
        self._messages: list[WorkerMessage] = []
        self._is_sent = self._is_greeted = False
        self._unfit = ""
        self._opened_at_s = self._heard_at_s = self._sent_at_s = self._retry_at_s = self._recheck_at_s = clock()
        self.trouble = f"{name} has not been reached yet"

    @property
    def link(self) -> Link | None:
        """The present link, to wait for; None while there is none."""
        return self._link

    @property
    def has_unsent(self) -> bool:
        """Whether the link is to be waited for until it takes more."""
        return self._link is not None and not self._is_sent

    @property
    def deadline_s(self) -> float:
        """When `serve` is next needed, even if nothing arrives."""
        if self._link is None:
            return self._retry_at_s
        if self._is_sent and self._courier and self._courier.has_step:
            return 0.0
        return min(self._sent_at_s + self._times.beat_s, self._heard_at_s + self._get_patience_s())

    def devices(self) -> list[Device]:
        return list(self._devices.values())

    # commands --------------------------------------------------------------------------------------------------------

    def spawn(self, device: str, *, unloaded: bool) -> None:
        if self._link is None:
            self._messages.append((device, Exited(0, code=1, log=f"no worker could be started: {self.trouble}")))
            return
        if device in self._workers:
            raise ValueError(f"{device} has a worker already")
        walls = self._choose_walls(self._devices[device].kind)
        self._workers[device] = 0
        self._send(Spawn(self._strip(device), unloaded, walls.to_json() if walls else ""))

    def send(self, device: str, message: WorkerCommand) -> None:
        line, name = encode(message).decode(), self._strip(device)
        if device not in self._workers:
            return
        if self._courier and isinstance(message, RunSpan):
            self._courier.send(name, message)
            return
        if self._courier and isinstance(message, Cancel) and (run := self._courier.drop(name)):
            self._messages.append((device, CANCELLED.to_failed(run, "")))
            return
        self._send(Pass(name, line))

    def kill(self, device: str) -> None:
        if device in self._workers:
            if self._courier:
                self._courier.forget(self._strip(device))
            self._send(Kill(self._strip(device)))

    def close(self, wait_s: float = 0.0) -> None:
        """End the link, at which the agent kills its workers; wait so long for that."""
        if self._link:
            self._link.close(wait_s)
        self._link, self._retry_at_s = None, inf

    # messages --------------------------------------------------------------------------------------------------------

    def serve(self) -> list[WorkerMessage]:
        """Read what has arrived, and do what is due; return what the workers said."""
        now_s = self._clock()
        if self._link is None:
            if now_s >= self._retry_at_s:
                self._connect(now_s)
        else:
            self._receive(self._link, now_s)
        if self._link is not None:
            self._keep_alive(now_s)
        if self._link is not None and self._courier:
            self._move_files(self._courier)
        messages, self._messages = self._messages, []
        return messages

    def _connect(self, now_s: float) -> None:
        try:
            start, link = self._make_start(), self._open_link()
        except OSError as error:
            self._lose(f"{self.name} can't be reached: {error}")
            return
        self._link, self._reader = link, make_reader()
        self._is_greeted = False
        self._heard_at_s = self._opened_at_s = now_s
        self._send(start)

    def _keep_alive(self, now_s: float) -> None:
        if now_s - self._heard_at_s >= self._get_patience_s():
            self._lose(f"{self.name} said nothing for {self._get_patience_s():g} s")
        elif self._is_greeted and self._unfit and now_s >= self._recheck_at_s:
            self._lose(self._unfit)  # to see whether it has been put right
        elif now_s - self._sent_at_s >= self._times.beat_s:
            self._send(Beat())
        elif self.has_unsent and self._link:
            self._is_sent = self._link.send(b"")

    def _move_files(self, courier: Courier) -> None:
        """Send the next pieces of files, as long as the link takes them, and tell the pool that they move."""
        for _ in range(PIECES):
            if not (self._is_sent and courier.has_step):
                break
            if (message := courier.take_step()) is not None:
                self._send(message)
        self._messages += [(f"{self.name}/{device}", report) for device, report in courier.take_reports()]

    def _get_patience_s(self) -> float:
        return self._times.lost_s if self._is_greeted else self._times.first_s

    def _send(self, message: ToNode) -> None:
        if self._link:
            line = encode_piece(message) if isinstance(message, Piece) else encode_any(message)
            self._is_sent = self._link.send(line)
            self._sent_at_s = self._clock()

    def _receive(self, link: Link, now_s: float) -> None:
        for _ in range(READS):
            if self._link is None or self._clock() - now_s > READS_S or (data := link.receive()) is None:
                return
            if not data:
                said = link.explain_end()
                self._lose(f"the link to {self.name} ended{f': {said}' if said else ''}")
                return
            self._heard_at_s = now_s
            try:
                for message in self._reader.feed(data):
                    self._on_message(message)
            except WireError as error:
                self._distrust(f"{self.name} sent what is no message: {error}")

    def _on_message(self, message: FromNode) -> None:
        if self._link is None:
            return  # what follows a lie
        match message:
            case Hello():
                self._greet(message)
            case Refused(reason):
                self._distrust(f"{self.name} can't go on: {reason}")
            case Absent(reason, is_coming) if not self._is_greeted:
                self._wait_longer(f"{self.name} is not there{' yet' * is_coming}: {reason[:MAX_NAME_CHARS]}")
            case _ if not self._is_greeted:
                raise WireError("a message before Hello")
            case Figures():
                self._update_device(message)
            case Wants() | Made() | Piece():
                self._on_file(message)
            case Heard() | Broken() | Ended():
                self._on_worker(message)

    def _wait_longer(self, reason: str) -> None:
        """Go on waiting for the first word of a node; begin anew now and then, as what is sent meanwhile is kept."""
        self.trouble = reason
        if self._clock() - self._opened_at_s >= ABSENT_S:
            self._lose(reason)

    def _on_file(self, message: Wants | Made | Piece) -> None:
        match message:
            case _ if self._courier is None:
                raise WireError("files that nobody asked for")
            case Wants():
                self._courier.on_wants(message)
            case Made():
                self._courier.on_made(message)
            case Piece():
                self._courier.on_piece(message)

    def _greet(self, hello: Hello) -> None:
        self._is_greeted, self._recheck_at_s = True, self._clock() + RECHECK_S
        if hello.trouble:
            self._unfit = f"{self.name} can't be used: {hello.trouble}"
        elif not hello.sees_state and self._courier is None:
            self._unfit = f"{self.name} does not see the state folder of this machine; mount it there, at the same path"
        else:
            self._unfit = explain_difference(self.name, self._facts, hello.facts)
        self.trouble = self._unfit

    def _update_device(self, figures: Figures) -> None:
        check_figures(figures)
        id = f"{self.name}/{figures.id}"
        if id not in self._devices and len(self._devices) >= MAX_DEVICES:
            raise WireError("more devices than a machine has")
        self._devices[id] = Device(
            id=id,
            kind=figures.device_kind,
            name=figures.name,
            total_bytes=figures.total_bytes,
            free_bytes=figures.free_bytes,
            state="sick" if self._unfit else figures.state,
            reason=self._unfit or figures.reason,
            card=f"{self.name}/{figures.card}" if figures.card else "",
            held_bytes=figures.held_bytes,
            read_at_s=self._clock() - figures.age_s if figures.age_s else 0.0,
            node=self.name,
            temperature_c=figures.temperature_c,
            load_percent=figures.load_percent,
            power_w=figures.power_w,
        )

    def _on_worker(self, message: Heard | Broken | Ended) -> None:
        device = f"{self.name}/{message.device}"
        if device not in self._workers:
            return  # its end was told when the link broke
        match message:
            case Heard(_, line):
                self._on_report(device, line)
            case Broken(_, reason):
                if self._courier:
                    self._courier.forget(message.device)
                self._messages.append((device, ProtocolError(reason)))
            case Ended():
                del self._workers[device]
                if self._courier:
                    self._courier.forget(message.device)
                exited = Exited(**{spec.name: getattr(message, spec.name) for spec in fields(Exited)})
                self._messages.append((device, exited))

    def _on_report(self, device: str, line: str) -> None:
        try:
            report = decode_report(line.encode())
        except (WireError, UnicodeEncodeError) as error:
            self._messages.append((device, ProtocolError(str(error))))
            return
        if isinstance(report, Ready):
            self._workers[device] = report.pid
            report = replace(report, device=f"{self.name}/{report.device}")
        if self._courier and isinstance(report, Progress):
            self._courier.note_units(self._strip(device), report)
        if isinstance(report, Done | Failed):
            report = self._courier.finish(self._strip(device), report) if self._courier else report
            self._lies = 0
        self._messages.append((device, report))

    def _distrust(self, reason: str) -> None:
        """End the link to a node that lies, or can't work; leave it alone for longer each time."""
        self._lose(reason)
        self._retry_at_s = self._clock() + RECHECK_S * 2 ** min(self._lies, MAX_RECHECKS)
        self._lies += 1

    def _lose(self, reason: str) -> None:
        """End the link: the node's workers are gone, or end by themselves before this is known."""
        self.close()
        if self._courier:
            self._courier.reset()
        self.trouble, self._retry_at_s = reason, self._clock() + self._times.retry_s
        for id, device in self._devices.items():
            self._devices[id] = replace(device, state="lost", reason=reason, free_bytes=0, held_bytes=0)
        for id, pid in self._workers.items():
            self._messages.append((id, Exited(pid, signal="SIGKILL", log=reason)))
        self._workers.clear()

    def _strip(self, device: str) -> str:
        return device.removeprefix(f"{self.name}/")


def make_reader() -> MessageReader[FromNode]:
    return MessageReader(decode_from_node, MAX_NODE_LINE_BYTES)


def check_figures(figures: Figures) -> None:
    """Raise WireError if no machine has such a device."""
    texts = (figures.id, figures.card, figures.name, figures.reason)
    if not figures.id or any(len(text) > MAX_NAME_CHARS or not text.isprintable() for text in texts):
        raise WireError("a device without a proper name")
    numbers = (figures.total_bytes, figures.free_bytes, figures.held_bytes, figures.age_s)
    if any(not 0 <= number <= MAX_BYTES for number in numbers):
        raise WireError("a device with impossible figures")


def explain_difference(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Return what differs on a node, and what to do; "" where nothing does."""
    apart = [key for key in ours if ours[key] != theirs.get(key)]
    if not apart:
        return ""
    told = ", ".join(f"{key} {theirs.get(key) or 'nothing'} instead of {ours[key] or 'nothing'}" for key in apart)
    return f"{name} has {told[:500]}: its results could differ; install the same there, then it is used by itself"
