"""The child process: `python -m gpu_pool.worker`.

Opens one handler by its dotted name and runs spans with it. It communicates over a private socket,
so a handler may print anything. There are two threads: the main thread runs the handler, the other
reads the socket, so that a cancel and the end of the daemon are noticed while the handler is busy.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
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
from gpu_pool.guards import die_with_parent, kill_group, make_device_files, raise_oom_score
from gpu_pool.types import OUTDATED, Cancel, Done, Failed, Fault, Open, Progress, Ready, RunSpan, Stop, WorkerReport
from gpu_pool.walls import Gates, Walls, raise_walls
from gpu_pool.wire import LineSplitter, WireError, decode_command, encode

PROGRESS_S = 0.2
MESSAGE_CHARS = 1000
TRACEBACK_CHARS = 8000

_CARD_WORDS = re.compile(r"\b(CUDA|cuDNN|cuBLAS)( driver)? error|\b(CUDNN|CUBLAS)_STATUS_", re.IGNORECASE)
"""In what PyTorch and the libraries under it say of an Xid, a lost context or a kernel that failed."""
_MEMORY_WORDS = re.compile(r"out of memory|STATUS_ALLOC_FAILED", re.IGNORECASE)

ProgressCallback = Callable[[int], None]
"""Takes the number of units that are done."""


class Handler(Protocol):
    """What a worker runs. Made once by `factory(device: str, options: dict)`, used for many spans.

    It may also have `close()`, called before the worker ends when asked, and `stats`, a JSON
    mapping that goes into Ready and each Done. The pool uses some of them: "device" (the id of the
    device that it really uses, if known), "model" (what it has loaded), "load_s" (seconds that
    took), "batch" (frames at once) and "held_bytes" (memory it holds of its card; sent with each
    report of progress too).
    """

    def run(self, payload: dict[str, Any], start: int, stop: int, progress: ProgressCallback) -> dict[str, Any]:
        """Run units [start, stop) and return a JSON mapping.

        Call `progress` often: it reports, keeps the worker from being killed as stalled, and
        raises when cancelled. An exception with `code`, `message`, `hint` and `retry` becomes a
        Failed with those; any other is "internal".
        """
        ...


class Cancelled(BaseException):  # not an Exception: a handler's own `except Exception` must not swallow it
    """Raised by the progress callback of a span that was cancelled."""


class Channel:
    """The worker's end of the socket.

    A bare descriptor: only the end of the process closes it, so that the daemon never sees
    end-of-file before the exit status is settled.
    """

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, message: WorkerReport) -> None:
        """Send a message. WireError, and nothing is sent, if it is no JSON or too long."""
        rest = memoryview(encode(message))
        with self._lock:
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def read_lines(self) -> Iterator[bytes]:
        """Yield lines until the daemon closes its end or has ended."""
        lines = LineSplitter(max_bytes=None)
        while data := os.read(self._fd, 1 << 16):
            yield from lines.feed(data)


@dataclass(frozen=True, slots=True)
class _ActiveRun:
    """A span to run, and whether it has been cancelled since."""

    run: RunSpan
    cancelled: threading.Event = field(default_factory=threading.Event)


class Worker:
    """Opens the handler that the first message names, then runs spans until it is stopped."""

    def __init__(self, channel: Channel, gates: Gates | None = None) -> None:
        self._channel, self._gates = channel, gates
        self._queue: queue.SimpleQueue[Open | _ActiveRun | None] = queue.SimpleQueue()
        self._current: _ActiveRun | None = None

    def serve(self) -> None:
        """Run until a Stop; when the daemon closes the channel, this process is killed."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        opening = self._queue.get()
        if not isinstance(opening, Open):
            return
        handler = _open_handler(opening)
        self._channel.send(_build_ready(handler, opening.device))
        while isinstance(active := self._queue.get(), _ActiveRun):
            self._send_end(active.run, self._run_span(handler, active))
        if close := getattr(handler, "close", None):
            close()

    def _run_span(self, handler: Handler, active: _ActiveRun) -> Done | Failed:
        end = _run_span(handler, active, self._channel)
        if isinstance(end, Failed) and end.fault != "cancelled" and self._gates and self._gates.have_moved():
            message = "A folder that the worker may open was replaced by another: a new worker takes over."
            return _build_failed(active.run, OUTDATED, message, fault="worker", retry=True, detail=end.detail)
        return end

    def _send_end(self, run: RunSpan, end: Done | Failed) -> None:
        try:
            self._channel.send(end)
        except WireError as error:
            self._channel.send(
                _build_failed(run, "internal", f"The handler's answer can't be sent: {error}", retry=True)
            )

    def _listen(self) -> None:
        try:
            for line in self._channel.read_lines():
                self._on_command(line)
        except (OSError, WireError) as error:
            print(f"gpu_pool.worker: {error}", file=sys.stderr, flush=True)
        finally:
            kill_group()

    def _on_command(self, line: bytes) -> None:
        match decode_command(line):
            case Open() as opening:
                self._queue.put(opening)
            case RunSpan() as run:
                self._current = _ActiveRun(run)
                self._queue.put(self._current)
            case Cancel(task):
                self._cancel(task)
            case Stop():
                self._queue.put(None)
                self._cancel(None)

    def _cancel(self, task: str | None) -> None:
        """Cancel the latest span if it belongs to `task`; None means any."""
        if self._current is not None and task in (None, self._current.run.task):
            self._current.cancelled.set()


def _open_handler(opening: Open) -> Handler:
    module, _, factory = opening.handler.partition(":")
    return cast(Handler, getattr(import_module(module), factory)(opening.device, dict(opening.options)))


def _build_ready(handler: Handler, device: str) -> Ready:
    stats = _get_stats(handler)
    return Ready(str(stats.get("device", device)), os.getpid(), stats)


def _get_stats(handler: Handler) -> Mapping[str, Any]:
    stats: Mapping[str, Any] = getattr(handler, "stats", {})
    return stats


def _run_span(handler: Handler, active: _ActiveRun, channel: Channel) -> Done | Failed:
    run, began_s = active.run, time.monotonic()
    try:
        failpoint("received")
        reporter = _ProgressReporter(handler, active, channel)
        result = handler.run(dict(run.payload), run.start, run.stop, reporter)
        failpoint("span_done")
        seconds, stats = time.monotonic() - began_s, _get_stats(handler)
        return Done(run.task, run.start, run.stop, seconds, result or {}, _read_rss_bytes(), stats)
    except Cancelled:
        return _build_failed(run, "cancelled", "The span was cancelled.", fault="cancelled")
    except Exception as error:  # noqa: BLE001  the edge of the process: every error becomes data
        return _explain_error(run, error)


class _ProgressReporter:
    """Reports progress at most five times a second, and always the last unit."""

    def __init__(self, handler: Handler, active: _ActiveRun, channel: Channel) -> None:
        self._handler, self._active, self._channel = handler, active, channel
        self._units = active.run.stop - active.run.start
        self._reported, self._reported_at_s = -1, -PROGRESS_S
        self._next_zero_s = time.monotonic() + PROGRESS_S  # a span that has just begun is known to have done nothing

    def __call__(self, units_done: int) -> None:
        if self._active.cancelled.is_set():
            raise Cancelled
        failpoint("mid_span")
        units, now_s = min(units_done, self._units), time.monotonic()
        is_due = now_s - self._reported_at_s >= PROGRESS_S and (units > 0 or now_s >= self._next_zero_s)
        if is_due or units == self._units > self._reported:
            self._reported, self._reported_at_s = units, now_s
            run = self._active.run
            held_bytes = int(_get_stats(self._handler).get("held_bytes", -1))
            self._channel.send(Progress(run.task, run.start, run.stop, units, held_bytes))


def _explain_error(run: RunSpan, error: Exception) -> Failed:
    """Return an exception as data: what caused it, and a message for people."""
    detail = "".join(traceback.format_exception(error))[-TRACEBACK_CHARS:]
    text = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS]
    is_of_card = _is_a(error, "AcceleratorError") or (isinstance(error, RuntimeError) and _CARD_WORDS.search(text))
    is_out_of_memory = is_of_card and _MEMORY_WORDS.search(text)
    if isinstance(error, MemoryError) or _is_a(error, "OutOfMemoryError") or is_out_of_memory:
        return _build_failed(run, "out_of_memory", text, fault="worker", retry=True, detail=detail)
    if is_of_card:
        return _build_failed(run, "device_error", text, fault="worker", retry=True, detail=detail)
    code, message = getattr(error, "code", None), getattr(error, "message", None)
    if not (isinstance(code, str) and isinstance(message, str)):
        return _build_failed(run, "internal", text, retry=True, detail=detail)
    hint, retry = str(getattr(error, "hint", "")), bool(getattr(error, "retry", False))
    fault: Fault = "worker" if code == "out_of_memory" else "job"  # other devices may have more memory
    return _build_failed(run, code, message, hint=hint, retry=retry, fault=fault, detail=detail)


def _build_failed(run: RunSpan, code: str, message: str, *, hint: str = "", **rest: Any) -> Failed:
    """Return the end of a span; texts that a handler made are cut to what the daemon takes."""
    return Failed(run.task, run.start, run.stop, code, message[:MESSAGE_CHARS], hint[:MESSAGE_CHARS], **rest)


def _is_a(error: Exception, class_name: str) -> bool:
    """Whether a class of this name is among its bases; importing torch would take seconds."""
    return any(cls.__name__ == class_name for cls in type(error).__mro__)


def _read_rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def main() -> None:
    """Serve the pool that started this process, over the inherited socket `--fd`."""
    parser = argparse.ArgumentParser(prog="python -m gpu_pool.worker", description="Started by the pool, not by hand.")
    parser.add_argument("device")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--walls", type=Walls.from_json)
    args = parser.parse_args()
    die_with_parent(args.parent)
    raise_oom_score()
    gates = None
    if args.walls:
        if not args.walls.is_alone:
            make_device_files()
        gates, missing = raise_walls(args.walls)
        for reason in missing:
            print(f"gpu_pool.worker: {reason}", file=sys.stderr, flush=True)
    Worker(Channel(args.fd), gates).serve()


if __name__ == "__main__":
    main()
