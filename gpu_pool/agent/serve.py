"""What the agent of a node does: it passes messages on between the daemon and the workers of its machine.

A LocalBackend runs the workers, so cards, walls, logs and guards are those of one machine.
"""

from __future__ import annotations

import errno
import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any, cast

from gpu_pool.agent.files import NodeFiles, WorkerFault
from gpu_pool.agent.pipe import Pipe, PipeEnded
from gpu_pool.cards import CardRules, CardWatch
from gpu_pool.cluster.files import PIECE_BYTES
from gpu_pool.cluster.messages import (
    Beat,
    Bring,
    Broken,
    Ended,
    Figures,
    FromNode,
    Heard,
    Hello,
    Kill,
    Pass,
    Piece,
    Probe,
    Probed,
    Refused,
    Spawn,
    Start,
    ToNode,
    Wants,
)
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.process import PACKAGES
from gpu_pool.types import Device, Done, Exited, Failed, ProtocolError, RunSpan, WorkerMessage
from gpu_pool.walls import Walls
from gpu_pool.wire import decode_command, encode

FIRST_S = 60.0
"""How long the daemon may take to say what it wants."""
FIRST_READING_S = 5.0
UNSENT_PIECES = 4
"""Pieces of files that wait in the pipe, so that other messages don't wait long behind them."""
NO_SPACE = f"[Errno {errno.ENOSPC}]"
MOST_CPU_WORKERS = 4
SHARED_BYTES = 4096
MAX_ANSWER_CHARS = 1 << 20
FIGURES = ("free_bytes", "held_bytes", "read_at_s", "temperature_c", "load_percent", "power_w")


class Agent:
    """The workers of this machine, as long as the daemon lives."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._backend: LocalBackend | None = None
        self._walls: Walls | None = None
        self._files: NodeFiles | None = None
        self._going: deque[tuple[str, Iterator[FromNode | None], bool]] = deque()
        """Devices, what is sent of them, and whether that is a word of their end, which is sent in any case."""
        self._told: dict[str, Device] = {}
        self._beat_s, self._fence_s = 1.0, FIRST_S

    def serve(self) -> str:
        """Serve the daemon; return why that ended. All workers have been killed then."""
        try:
            while True:
                self._turn()
        except PipeEnded as end:
            return str(end)
        except (KeyError, ValueError, ImportError, AttributeError, TypeError) as error:
            return self._refuse(f"{type(error).__name__}: {error}")
        except OSError as error:
            where = error.filename or (self._files.folder if self._files else "")
            return self._refuse(f"{error.strerror}: {where}")
        finally:
            if self._backend:
                self._backend.close()
            if self._files:
                self._files.close()

    def _refuse(self, reason: str) -> str:
        try:
            self._pipe.send(Refused(reason[:1000]))
        except PipeEnded as end:
            return f"{reason}; {end}"
        return reason

    def _turn(self) -> None:
        fence_at_s = self._fence_at_s
        messages, commands = self._wait(), self._pipe.receive()
        if time.monotonic() >= fence_at_s:  # what lay in the pipe may be old, as after a stop of this process
            raise PipeEnded(f"nothing was heard of the daemon for {self._fence_s:g} s: its workers are ended")
        for message in messages:
            self._report(message)
        for command in commands:
            self._execute(command)
        self._report_devices()
        self._send_files()
        self._pipe.flush()
        if self._backend and time.monotonic() - self._pipe.sent_at_s >= self._beat_s:
            self._pipe.send(Beat())

    @property
    def _fence_at_s(self) -> float:
        return self._pipe.heard_at_s + self._fence_s

    def _wait(self) -> list[WorkerMessage]:
        """Wait for the daemon or a worker, and for room in the pipe if there is something to send."""
        readers: list[Any] = [self._pipe.in_fd, *([self._backend] if self._backend else [])]
        due_s = min(self._backend.deadline_s if self._backend else inf, self._fence_at_s) - time.monotonic()
        timeout_s = 0.0 if self._can_send_files else max(0.0, min(self._beat_s, due_s))
        select.select(readers, [self._pipe.out_fd] if self._pipe.unsent_bytes else [], [], timeout_s)
        return self._backend.wait(0.0, self._pipe.in_fd) if self._backend else []

    @property
    def _can_send_files(self) -> bool:
        return bool(self._going) and self._pipe.unsent_bytes < UNSENT_PIECES * PIECE_BYTES

    def _send_files(self) -> None:
        """Send the next piece of what a span has made, or what waits behind it."""
        if self._can_send_files:
            try:
                message = next(self._going[0][1], self)
            except WorkerFault as fault:
                self._accuse(self._going[0][0], fault)
                return
            if message is self:
                self._going.popleft()
            elif message is not None:
                self._pipe.send(cast(FromNode, message))

    def _execute(self, command: ToNode) -> None:
        match command:
            case Start():
                self._start(command)
            case Spawn(device, unloaded, walls):
                self._spawn(device, walls, unloaded=unloaded)
            case Bring(number=number):
                self._pipe.send(Wants(number, self._get_files().bring(command)))
            case Piece():
                self._get_files().add(command)
            case Pass(device, line):
                self._pass(device, line)
            case Kill(device):
                self._withhold(device)
                self._get_backend().kill(device)
            case Probe(answer_chars):
                self._pipe.send(Probed(time.time(), "x" * min(answer_chars, MAX_ANSWER_CHARS)))

    def _accuse(self, device: str, fault: WorkerFault) -> None:
        """Tell the daemon that a worker is not to be believed, and nothing more of what it has made."""
        self._withhold(device)
        self._pipe.send(Broken(device, str(fault)[:1000]))

    def _withhold(self, device: str) -> None:
        self._going = deque(one for one in self._going if one[0] != device or one[2])

    def _spawn(self, device: str, walls: str, *, unloaded: bool) -> None:
        self._walls = None
        if self._files:
            self._files.open_folder(device)
        if walls and self._files:
            walls = json.dumps(self._files.localise(device, json.loads(walls)))
        if walls:
            self._walls = open_to_code(Walls.from_json(walls))
        self._get_backend().spawn(device, unloaded=unloaded)

    def _pass(self, device: str, line: str) -> None:
        command = decode_command(line.encode())
        if self._files and isinstance(command, RunSpan):
            try:
                self._files.lay_out(device)
            except WorkerFault as fault:
                self._accuse(device, fault)
                return
            command = replace(command, payload=self._files.localise(device, dict(command.payload)))
        self._get_backend().send(device, command)

    def _get_files(self) -> NodeFiles:
        if self._files is None:
            raise ValueError("files, though the daemon's folders are here")
        return self._files

    def _get_backend(self) -> LocalBackend:
        if self._backend is None:
            raise ValueError("the first message is Start")
        return self._backend

    def _start(self, start: Start) -> None:
        if self._backend:
            raise ValueError("Start came twice")
        self._beat_s, self._fence_s = start.beat_s, start.fence_s
        log_dir = Path(start.log_dir)
        if start.folder:
            self._files = NodeFiles(Path(start.folder), start.roots, start.content_bytes)
            log_dir = self._files.folder / "logs"
        watch = CardWatch(log_dir / "nvml.log")
        watch.wait_for_first(FIRST_READING_S)
        self._backend = LocalBackend(
            cpu_devices(start.cpu_workers or max(1, min(MOST_CPU_WORKERS, os.cpu_count() or 1))),
            handler=start.handler,
            handler_options={},
            kind_options=cast(Any, start.options),
            unloaded_options=start.unloaded_options,
            log_dir=log_dir,
            watch=watch,
            rules=CardRules(
                tuple(start.cards["only"]),
                tuple(start.cards["exclude"]),
                start.cards["workers"],
                start.cards.get("workers_of", {}),
            ),
            choose_walls=lambda _: self._walls,
        )
        facts = find_function(start.describe)(start.options["cpu"])
        sees_state = read_text(start.shared_file) == start.shared_text
        self._pipe.send(Hello(facts, sees_state, self._files.trouble if self._files else ""))
        self._pipe.heard_at_s = time.monotonic()  # there was no worker to end, however long this took

    def _report(self, message: WorkerMessage) -> None:
        """Pass on what a worker says; behind the files of its span, if there are any."""
        device, report = message
        if self._files and isinstance(report, Done | Failed) and not self._files.end_span(device):
            report = ProtocolError("the end of a span it doesn't have")
        if self._files and isinstance(report, Done | Failed):
            if isinstance(report, Failed) and (report.code == "disk_full" or NO_SPACE in report.message):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._files.folder))
            self._going.append((device, self._files.collect(device, is_done=isinstance(report, Done)), False))
        told = build_message(device, report)
        if any(name == device for name, _, _ in self._going):
            self._going.append((device, iter([told]), isinstance(told, Ended)))
        else:
            self._pipe.send(told)

    def _report_devices(self) -> None:
        """Say which devices have changed; those whose figures alone have, as often as there is a sign of life."""
        now_s = time.monotonic()
        is_due = now_s - self._pipe.sent_at_s >= self._beat_s
        for device in self._backend.devices() if self._backend else ():
            told = self._told.get(device.id)
            if told is None or (told != device and (is_due or has_changed(told, device))):
                self._told[device.id] = device
                self._pipe.send(describe_device(device, now_s))


def build_message(device: str, report: object) -> FromNode:
    """Return what the daemon is told of a worker."""
    match report:
        case Exited():
            return Ended(device, **asdict(report))
        case ProtocolError(reason):
            return Broken(device, reason)
        case _:
            return Heard(device, encode(cast(Any, report)).decode())


def has_changed(told: Device, now: Device) -> bool:
    """Whether more than the figures of the card has changed."""
    return replace(told, **{name: getattr(now, name) for name in FIGURES}) != now


def describe_device(device: Device, now_s: float) -> Figures:
    """Return a device as the daemon is told of it; times of this machine's clock mean nothing there."""
    return Figures(
        id=device.id,
        device_kind=device.kind,
        name=device.name,
        total_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        state=device.state,
        reason=device.reason,
        card=device.card,
        held_bytes=device.held_bytes,
        age_s=now_s - device.read_at_s if device.read_at_s else 0.0,
        temperature_c=device.temperature_c,
        load_percent=device.load_percent,
        power_w=device.power_w,
    )


def open_to_code(walls: Walls) -> Walls:
    """Return the walls with the code of this machine, which may be elsewhere than that of the daemon's."""
    code = (sys.prefix, sys.base_prefix, str(PACKAGES), *filter(None, sys.path))
    return replace(walls, read=tuple(dict.fromkeys((*walls.read, *code))))


def find_function(name: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the function "package.module:function"."""
    module, _, function = name.partition(":")
    return cast(Callable[[Mapping[str, Any]], dict[str, Any]], getattr(import_module(module), function))


def read_text(path: str) -> str:
    """Return the content of a small file, "" where it can't be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(SHARED_BYTES).decode(errors="replace")
    except OSError:
        return ""
