"""Handlers that run inside real workers.

A span does what its payload's "do" names; a factory fails on purpose.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

Payload = dict[str, Any]
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Work:
    """One span, as a handler gets it."""

    payload: Payload
    start: int
    stop: int
    tick: Tick


Deed = Callable[[Work], Payload | None]


class Obliging:
    """A handler that does what the payload names."""

    def __init__(self, device: str, options: Payload) -> None:
        self._device = device
        self._options = options
        self.stats = options.get("stats", {})

    def run(self, payload: Payload, start: int, stop: int, tick: Tick) -> Payload | None:
        if payload["do"] == "describe":
            names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "EXTRA")
            environment = {name: os.environ.get(name) for name in names}
            return {"device": self._device, "options": self._options, "env": environment, "path": sys.path}
        if payload["do"] == "update stats":
            self.stats = {**self.stats, **payload["stats"]}
            return count(Work(payload, start, stop, tick))
        return DEEDS[payload["do"]](Work(payload, start, stop, tick))

    def close(self) -> None:
        if farewell := self._options.get("farewell"):
            with Path(farewell).open("a") as book:
                book.write(f"{os.getpid()}\n")


def open_slowly(_: str, options: Payload) -> NoReturn:
    """Stay in native code for longer than any test."""
    announce(options)
    spin()


def open_never(*_: object) -> NoReturn:
    raise ModuleNotFoundError("no module named 'warp_drive'")


def open_once(device: str, options: Payload) -> Obliging:
    """Open the handler if the file `options["ok"]` exists."""
    if not Path(options["ok"]).exists():
        raise RuntimeError("not yet")
    return Obliging(device, options)


class EngineTrouble(Exception):
    """Looks like the errors that engines raise."""

    code, message, hint, retry = "no_face", "There is no face in face.jpg.", "Use a portrait.", False


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's error."""


def announce(options: Payload) -> None:
    """Send the pid to the test, through a named pipe."""
    if path := options.get("announce"):
        Path(path).write_text(f"{os.getpid()}\n")


def count(work: Work) -> Payload:
    for done in range(1, work.stop - work.start + 1):
        work.tick(done)
    return {"sum": sum(range(work.start, work.stop))}


def copy(work: Work) -> Payload:
    """Copy a file to another one, named by where the span begins."""
    shutil.copyfile(work.payload["given"], f"{work.payload['made']}-{work.start}")
    return count(work)


def count_slowly(work: Work) -> Payload:
    for done in range(1, work.stop - work.start + 1):
        threading.Event().wait(0.01)
        work.tick(done)
    return {}


def swallow_exceptions(work: Work) -> NoReturn:
    """Go on after every Exception."""
    announce(work.payload)
    while True:
        threading.Event().wait(0.01)
        with contextlib.suppress(Exception):
            work.tick(0)


def wait_for_cancel(work: Work) -> NoReturn:
    announce(work.payload)
    never = threading.Event()
    while True:
        never.wait(0.01)
        work.tick(0)


def swallow_cancel(work: Work) -> NoReturn:
    announce(work.payload)
    never = threading.Event()
    while True:
        never.wait(0.01)
        with contextlib.suppress(BaseException):
            work.tick(0)


def sleep(work: Work) -> Payload:
    threading.Event().wait(work.payload["seconds"])
    return {}


def freeze(work: Work) -> NoReturn:
    announce(work.payload)
    work.tick(0)
    threading.Event().wait()
    raise AssertionError


def spin() -> NoReturn:
    """Run native code that lets other threads run."""
    while True:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**30)


def hog(work: Work) -> NoReturn:
    """Run native code that lets no other thread of this process run."""
    announce(work.payload)
    ctypes.PyDLL(None).pause()
    raise AssertionError


def spin_announced(work: Work) -> NoReturn:
    announce(work.payload)
    spin()


def crash(work: Work) -> NoReturn:
    print("about to crash", flush=True)
    os.kill(os.getpid(), getattr(signal, work.payload["signal"]))
    raise AssertionError


def leave(work: Work) -> NoReturn:
    print("I have had enough.")
    os._exit(work.payload["code"])


def babble(work: Work) -> NoReturn:
    os.write(channel(), work.payload["bytes"].encode() * work.payload.get("times", 1))
    threading.Event().wait()
    raise AssertionError


def shut_channel(_: Work) -> NoReturn:
    socket.socket(fileno=os.dup(channel())).shutdown(socket.SHUT_WR)
    threading.Event().wait()
    raise AssertionError


def channel() -> int:
    """Return the worker's socket, as its command line names it."""
    return int(sys.argv[sys.argv.index("--fd") + 1])


def raise_trouble(_: Work) -> NoReturn:
    raise EngineTrouble


def raise_bug(_: Work) -> NoReturn:
    raise ZeroDivisionError("frames / 0")


def raise_by_name(work: Work) -> NoReturn:
    errors: dict[str, Exception] = {"memory": MemoryError(), "torch": OutOfMemoryError("card")}
    errors["cuda"] = RuntimeError("CUDA error: lost")
    errors["cudnn"] = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
    errors["cublas"] = RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`")
    errors["workspace"] = RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
    raise errors[work.payload["error"]]


def answer_badly(work: Work) -> Payload:
    answers: dict[str, object] = {"set": {1}, "nan": float("nan"), "long": "x" * (2 << 20)}
    return {"answer": answers[work.payload["what"]]}


def print_much(work: Work) -> Payload:
    for line in range(work.payload["lines"]):
        print(f'{{"kind": "done"}} line {line}')
    subprocess.run(["echo", "from a program"], check=True)
    return {}


def chatter(work: Work) -> NoReturn:
    never = threading.Event()
    while True:
        print("blah " * 1000)
        never.wait(0.001)
        work.tick(0)


def say_and_leave(work: Work) -> NoReturn:
    os.write(channel(), work.payload["bytes"].encode())
    os._exit(0)


def list_descriptors(_: Work) -> Payload:
    """List what a program inherits that closes nothing itself."""
    listed = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True)
    return {"channel": channel(), "inherited": [int(fd) for fd in listed.stdout.split()]}


def crash_above_program(work: Work) -> NoReturn:
    child = subprocess.Popen(["sleep", "600"])
    Path(work.payload["announce"]).write_text(f"{child.pid}\n")
    crash(work)


def start_program(work: Work) -> NoReturn:
    """Start a program that would outlive this process, and wait."""
    child = subprocess.Popen(["sleep", "600"])
    Path(work.payload["announce"]).write_text(f"{child.pid}\n")
    freeze(Work({}, work.start, work.stop, work.tick))


DEEDS: dict[str, Deed] = {
    "count": count,
    "copy": copy,
    "count slowly": count_slowly,
    "wait for cancel": wait_for_cancel,
    "swallow exceptions": swallow_exceptions,
    "swallow cancel": swallow_cancel,
    "sleep": sleep,
    "freeze": freeze,
    "spin": spin_announced,
    "hog": hog,
    "crash": crash,
    "leave": leave,
    "babble": babble,
    "shut channel": shut_channel,
    "raise trouble": raise_trouble,
    "raise bug": raise_bug,
    "raise": raise_by_name,
    "answer badly": answer_badly,
    "print": print_much,
    "chatter": chatter,
    "say and leave": say_and_leave,
    "list descriptors": list_descriptors,
    "crash above program": crash_above_program,
    "start program": start_program,
}
