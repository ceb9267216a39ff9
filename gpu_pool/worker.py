"""The child process: `python -m gpu_pool.worker`. Opens one handler by its dotted name and runs spans with it.

It talks over a private socket, so a handler may print whatever it likes. There are two threads: this one runs the
handler, another listens, so that a cancel and the end of the daemon are noticed while the handler is busy.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from gpu_pool.failpoints import failpoint
from gpu_pool.guards import die_with_parent, end_group, volunteer_for_oom_killer
from gpu_pool.types import Cancel, Done, Failed, Fault, Open, Progress, Ready, RunSpan, Stop, WorkerReport
from gpu_pool.wire import Lines, WireError, decode_command, encode

PROGRESS_S = 0.2
MESSAGE_CHARS = 1000
TRACEBACK_CHARS = 8000

Tick = Callable[[int], None]


class Handler(Protocol):
    """What a worker runs. Made once by `factory(device: str, options: dict)`, used for many spans.

    It may also have `close()`, called before a polite end, and `facts`, a JSON mapping that goes into Ready and each
    Done. Some of them mean something to the pool: "device" (the id it really sees, if it can tell), "model" (what it
    has loaded), "load_s" (seconds that took), "batch" (frames at once) and "held_bytes" (memory it holds of its card;
    told with each report of progress too).
    """

    def run(self, payload: dict[str, Any], start: int, stop: int, tick: Tick) -> dict[str, Any]:
        """Do units [start, stop). Call `tick(units done)` often: it reports, shows life, and raises when cancelled.

        An exception with `code`, `message`, `hint` and `retry` becomes a Failed with those; any other is "internal".
        """
        ...


class Cancelled(BaseException):  # not an Exception: a handler's own `except Exception` must not swallow it
    """Raised by tick() in a span that was cancelled."""


class Channel:
    """The worker's end of the socket. A bare descriptor: only the end of the process closes it, so that the daemon sees
    end-of-file never before the exit status is settled."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, message: WorkerReport) -> None:
        """WireError if it is no JSON or too long; then nothing was sent."""
        rest = memoryview(encode(message))
        with self._lock:
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def lines(self) -> Iterator[bytes]:
        """Until the daemon closes its end or is gone."""
        lines = Lines()
        while data := os.read(self._fd, 1 << 16):
            yield from lines.feed(data)


@dataclass(frozen=True, slots=True)
class _Order:
    """A span to run, and whether it has been cancelled since."""

    run: RunSpan
    cancelled: threading.Event = field(default_factory=threading.Event)


class Worker:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._orders: queue.SimpleQueue[Open | _Order | None] = queue.SimpleQueue()
        self._current: _Order | None = None

    def serve(self) -> None:
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        opened = self._orders.get()
        if not isinstance(opened, Open):
            return
        handler = _open(opened)
        self._channel.send(_ready(handler, opened.device))
        while isinstance(order := self._orders.get(), _Order):
            self._answer(order.run, _perform(handler, order, self._channel))
        getattr(handler, "close", _nothing)()

    def _answer(self, run: RunSpan, answer: Done | Failed) -> None:
        try:
            self._channel.send(answer)
        except WireError as error:
            self._channel.send(_failed(run, "internal", f"The handler's answer can't be sent: {error}", retry=True))

    def _listen(self) -> None:
        try:
            for line in self._channel.lines():
                self._obey(line)
        except (OSError, WireError) as error:
            print(f"gpu_pool.worker: {error}", file=sys.stderr, flush=True)
        finally:
            end_group()

    def _obey(self, line: bytes) -> None:
        match decode_command(line):
            case Open() as opened:
                self._orders.put(opened)
            case RunSpan() as run:
                self._current = _Order(run)
                self._orders.put(self._current)
            case Cancel(task):
                self._cancel(task)
            case Stop():
                self._orders.put(None)
                self._cancel(None)

    def _cancel(self, task: str | None) -> None:
        """The span that was sent last, if it belongs to `task`; None means any."""
        if self._current is not None and task in (None, self._current.run.task):
            self._current.cancelled.set()


def _open(opened: Open) -> Handler:
    module, _, factory = opened.handler.partition(":")
    return cast(Handler, getattr(import_module(module), factory)(opened.device, dict(opened.options)))


def _ready(handler: Handler, device: str) -> Ready:
    facts = _facts(handler)
    return Ready(str(facts.get("device", device)), os.getpid(), facts)


def _facts(handler: Handler) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = getattr(handler, "facts", {})
    return facts


def _perform(handler: Handler, order: _Order, channel: Channel) -> Done | Failed:
    run, began = order.run, time.monotonic()
    try:
        failpoint("received")
        result = handler.run(dict(run.payload), run.start, run.stop, _Ticker(handler, order, channel))
        failpoint("span_done")
        return Done(
            run.task, run.start, run.stop, time.monotonic() - began, result or {}, _rss_bytes(), _facts(handler)
        )
    except Cancelled:
        return _failed(run, "cancelled", "The span was cancelled.", fault="cancelled")
    except Exception as error:  # noqa: BLE001  the edge of the process: whatever went wrong becomes data
        return failure(run, error)


class _Ticker:
    """Reports at most five times a second, and the last unit always."""

    def __init__(self, handler: Handler, order: _Order, channel: Channel) -> None:
        self._handler, self._order, self._channel = handler, order, channel
        self._units = order.run.stop - order.run.start
        self._said, self._said_at = -1, -PROGRESS_S

    def __call__(self, units_done: int) -> None:
        if self._order.cancelled.is_set():
            raise Cancelled
        failpoint("mid_span")
        units, now = min(units_done, self._units), time.monotonic()
        if now - self._said_at >= PROGRESS_S or units == self._units > self._said:
            self._said, self._said_at = units, now
            run = self._order.run
            held = int(_facts(self._handler).get("held_bytes", -1))
            self._channel.send(Progress(run.task, run.start, run.stop, units, held))


def failure(run: RunSpan, error: Exception) -> Failed:
    """An exception as data: whose fault it is, and what to tell a person."""
    detail = "".join(traceback.format_exception(error))[-TRACEBACK_CHARS:]
    told = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS]
    if isinstance(error, MemoryError) or _is_a(error, "OutOfMemoryError"):
        return _failed(run, "out_of_memory", told, fault="worker", retry=True, detail=detail)
    if _is_a(error, "AcceleratorError") or told.startswith("RuntimeError: CUDA error"):
        return _failed(run, "device_error", told, fault="worker", retry=True, detail=detail)
    code, message = getattr(error, "code", None), getattr(error, "message", None)
    if not (isinstance(code, str) and isinstance(message, str)):
        return _failed(run, "internal", told, retry=True, detail=detail)
    hint, retry = str(getattr(error, "hint", "")), bool(getattr(error, "retry", False))
    fault: Fault = "worker" if code == "out_of_memory" else "job"  # other devices may have more
    return _failed(run, code, message, hint=hint, retry=retry, fault=fault, detail=detail)


def _failed(run: RunSpan, code: str, message: str, **rest: Any) -> Failed:
    return Failed(run.task, run.start, run.stop, code, message, **rest)


def _is_a(error: Exception, name: str) -> bool:
    """By name, because torch must not be imported to ask."""
    return any(cls.__name__ == name for cls in type(error).__mro__)


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _nothing() -> None:
    pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gpu_pool.worker", description="Started by the pool, not by hand.")
    parser.add_argument("device")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    args = parser.parse_args()
    die_with_parent(args.parent)
    volunteer_for_oom_killer()
    Worker(Channel(args.fd)).serve()


if __name__ == "__main__":
    main()
