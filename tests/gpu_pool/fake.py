"""A backend without processes: its workers follow a script, and wait() sets the clock."""

from __future__ import annotations

import heapq
import itertools
import select
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from gpu_pool.types import (
    Cancel,
    Device,
    Done,
    Exited,
    Failed,
    Open,
    Progress,
    ProtocolError,
    Ready,
    RunSpan,
    Stop,
    WorkerCommand,
    WorkerMessage,
    WorkerReport,
)
from gpu_pool.wire import encode

Message = WorkerReport | ProtocolError | Exited
Answer = Callable[[str, RunSpan], Iterable[tuple[float, Message]]]
"""(device, run) -> the messages of the worker, each with the seconds from the RunSpan to it."""


class Clock:
    """Seconds that pass only when they are set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def say_nothing(*_: object) -> Iterable[tuple[float, Message]]:
    """Answer a span with nothing: the test sends the messages."""
    return ()


def make_done(run: RunSpan, seconds: float = 0.0, rss_bytes: int = 0) -> Done:
    return Done(run.task, run.start, run.stop, seconds, rss_bytes=rss_bytes)


def make_progress(run: RunSpan, units: int = 1) -> Progress:
    return Progress(run.task, run.start, run.stop, units)


def make_failed(run: RunSpan, code: str, **more: str) -> Failed:
    return Failed(run.task, run.start, run.stop, code, code, **more)  # type: ignore[arg-type]


class FakeBackend:
    """A backend whose workers send what a test lets them `say`.

    spawned, sent, killed  the calls so far
    unloaded               the spawned ones that are to load no model
    opening                (device, pid) -> the first message of a new worker, and after how many
                           seconds
    deaf                   devices whose workers ignore Cancel and Stop
    immortal               devices whose workers survive SIGKILL
    """

    def __init__(self, devices: Sequence[Device], clock: Clock, answer: Answer = say_nothing) -> None:
        self._devices = {device.id: device for device in devices}
        self._has_changed = False
        self._clock = clock
        self._answer = answer
        self._alive: dict[str, int] = {}
        self._pids = itertools.count(1000)
        self._order = itertools.count()
        self._script: list[tuple[float, int, int, str, Message]] = []
        self.spawned: list[str] = []
        self.unloaded: list[str] = []
        self.sent: list[tuple[str, WorkerCommand]] = []
        self.killed: list[str] = []
        self.deaf: set[str] = set()
        self.immortal: set[str] = set()
        self.opening: Callable[[str, int], tuple[float, Message]] = lambda device, pid: (0.0, Ready(device, pid))
        self.closed = False

    def change(self, device: str, **fields: Any) -> None:
        """Change fields of a device: its memory, its state, the time of the reading."""
        self.add(replace(self._devices[device], **fields))

    def add(self, device: Device) -> None:
        self._devices[device.id] = device
        self._has_changed = True

    def say(self, device: str, message: Message, after_s: float = 0.0) -> None:
        entry = (self._clock() + after_s, next(self._order), self._alive[device], device, message)
        heapq.heappush(self._script, entry)

    def die(self, device: str, signal: str = "SIGKILL", after_s: float = 0.0) -> None:
        self.say(device, Exited(self._alive[device], signal=signal, log="last words"), after_s)

    def runs(self) -> list[tuple[str, RunSpan]]:
        return [(device, message) for device, message in self.sent if isinstance(message, RunSpan)]

    @property
    def alive(self) -> set[str]:
        return set(self._alive)

    # the methods of a backend

    def devices(self) -> Sequence[Device]:
        return tuple(self._devices.values())

    def spawn(self, device: str, *, unloaded: bool = False) -> None:
        if device in self._alive:
            raise ValueError(f"{device} has a worker already")
        self._alive[device] = next(self._pids)
        self.spawned.append(device)
        if unloaded:
            self.unloaded.append(device)
        after_s, message = self.opening(device, self._alive[device])
        self.say(device, message, after_s)

    def send(self, device: str, message: WorkerCommand) -> None:
        encode(message)
        self.sent.append((device, message))
        if device in self._alive:
            self._on_command(device, message)

    def kill(self, device: str) -> None:
        if device in self._alive:
            self.killed.append(device)
            if device not in self.immortal:
                self._forget(device)
                self.die(device)

    def wait(self, timeout_s: float, wakeup_fd: int) -> list[WorkerMessage]:
        has_changed, self._has_changed = self._has_changed, False
        if not has_changed and not select.select([wakeup_fd], [], [], 0)[0]:
            next_s = self._script[0][0] if self._script else float("inf")
            self._clock.now = max(self._clock.now, min(next_s, self._clock.now + timeout_s))
        messages: list[WorkerMessage] = []
        while self._script and self._script[0][0] <= self._clock.now:
            _, _, pid, device, message = heapq.heappop(self._script)
            if self._alive.get(device) == pid:
                messages.append((device, message))
                if isinstance(message, Exited):
                    del self._alive[device]
        return messages

    def close(self) -> None:
        self._alive.clear()
        self.closed = True

    def _on_command(self, device: str, message: WorkerCommand) -> None:
        match message:
            case RunSpan():
                for after_s, answer in self._answer(device, message):
                    self.say(device, answer, after_s)
            case Cancel(task) if device not in self.deaf:
                run = next((run for on, run in reversed(self.runs()) if on == device), None)
                if run and run.task == task:
                    self._forget(device)
                    self.say(device, make_failed(run, "cancelled", fault="cancelled"))
            case Stop() if device not in self.deaf:
                self._forget(device)
                self.say(device, Exited(self._alive[device]))
            case Cancel() | Stop() | Open():
                pass

    def _forget(self, device: str) -> None:
        """Drop the messages that the worker has not sent yet."""
        self._script = [entry for entry in self._script if entry[3] != device]
        heapq.heapify(self._script)
