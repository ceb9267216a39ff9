"""What the agent of a node does: it passes messages on between the daemon and the workers of its machine.

A LocalBackend runs the workers, so cards, walls, logs and guards are those of one machine.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from gpu_pool.agent.pipe import Pipe, PipeEnded
from gpu_pool.cards import CardRules, CardWatch
from gpu_pool.cluster.messages import (
    Beat,
    Broken,
    Ended,
    Figures,
    Heard,
    Hello,
    Kill,
    Pass,
    Probe,
    Probed,
    Refused,
    Spawn,
    Start,
    ToNode,
)
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.process import PACKAGES
from gpu_pool.types import Device, DeviceKind, Exited, ProtocolError, WorkerMessage
from gpu_pool.walls import Walls
from gpu_pool.wire import decode_command, encode

FIRST_S = 60.0
"""How long the daemon may take to say what it wants."""
FIRST_READING_S = 5.0
UNSENT_S = 0.05
MOST_CPU_WORKERS = 4
SHARED_BYTES = 4096
MAX_ANSWER_CHARS = 1 << 20
FIGURES = ("free_bytes", "held_bytes", "read_at_s", "temperature_c", "load_percent", "power_w")


class Agent:
    """The workers of this machine, as long as the daemon lives."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._backend: LocalBackend | None = None
        self._walls: dict[DeviceKind, Walls | None] = {}
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
            return self._refuse(f"{error.strerror}: {error.filename}")
        finally:
            if self._backend:
                self._backend.close()

    def _refuse(self, reason: str) -> str:
        try:
            self._pipe.send(Refused(reason[:1000]))
        except PipeEnded as end:
            return f"{reason}; {end}"
        return reason

    def _turn(self) -> None:
        for message in self._wait():
            self._report(message)
        for command in self._pipe.receive():
            self._execute(command)
        self._report_devices()
        self._pipe.flush()
        now_s = time.monotonic()
        if now_s - self._pipe.heard_at_s >= self._fence_s:
            raise PipeEnded(f"nothing was heard of the daemon for {self._fence_s:g} s: its workers are ended")
        if self._backend and now_s - self._pipe.sent_at_s >= self._beat_s:
            self._pipe.send(Beat())

    def _wait(self) -> list[WorkerMessage]:
        timeout_s = UNSENT_S if self._pipe.has_unsent else self._beat_s
        if self._backend:
            return self._backend.wait(timeout_s, self._pipe.in_fd)
        select.select([self._pipe.in_fd], [], [], timeout_s)
        return []

    def _execute(self, command: ToNode) -> None:
        match command:
            case Start():
                self._start(command)
            case Spawn(device, unloaded, walls):
                self._walls[self._told[device].kind] = open_to_code(Walls.from_json(walls)) if walls else None
                self._get_backend().spawn(device, unloaded=unloaded)
            case Pass(device, line):
                self._get_backend().send(device, decode_command(line.encode()))
            case Kill(device):
                self._get_backend().kill(device)
            case Probe(answer_chars):
                self._pipe.send(Probed(time.time(), "x" * min(answer_chars, MAX_ANSWER_CHARS)))

    def _get_backend(self) -> LocalBackend:
        if self._backend is None:
            raise ValueError("the first message is Start")
        return self._backend

    def _start(self, start: Start) -> None:
        if self._backend:
            raise ValueError("Start came twice")
        self._beat_s, self._fence_s = start.beat_s, start.fence_s
        log_dir = Path(start.log_dir)
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
            choose_walls=self._walls.get,
        )
        self._pipe.send(
            Hello(
                find_function(start.describe)(start.options["cpu"]), read_text(start.shared_file) == start.shared_text
            )
        )

    def _report(self, message: WorkerMessage) -> None:
        device, report = message
        match report:
            case Exited():
                self._pipe.send(Ended(device, **asdict(report)))
            case ProtocolError(reason):
                self._pipe.send(Broken(device, reason))
            case _:
                self._pipe.send(Heard(device, encode(report).decode()))

    def _report_devices(self) -> None:
        """Say which devices have changed; those whose figures alone have, as often as there is a sign of life."""
        now_s = time.monotonic()
        is_due = now_s - self._pipe.sent_at_s >= self._beat_s
        for device in self._backend.devices() if self._backend else ():
            told = self._told.get(device.id)
            if told is None or (told != device and (is_due or has_changed(told, device))):
                self._told[device.id] = device
                self._pipe.send(describe_device(device, now_s))


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
