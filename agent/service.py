"""The daemon's manners as a service: one instance, signals, and what systemd is told."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from agent.errors import UserError


class AlreadyRunning(UserError):
    """Another daemon holds the state folder; the message names its process."""


class Lock:
    """One daemon for each state folder. The kernel lets go of it however the process ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode().strip() or "unknown"
            os.close(self._fd)
            raise AlreadyRunning(
                f"another musedrop daemon (process {holder}) uses {path.parent}: stop it first"
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        os.close(self._fd)


def daemon_pid(path: Path) -> int | None:
    """The process that holds the lock, or None if nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(fd, 32).decode().strip() or 0)
    finally:
        os.close(fd)
    return None


class Signals:
    """SIGTERM and SIGINT ask for a drain, a second one for an end at once. Handlers only count and wake."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.asked = 0
        self._wake = wake
        self._before = {number: signal.signal(number, self._count) for number in (signal.SIGTERM, signal.SIGINT)}

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self.asked += 1
        self._wake()

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Notifier:
    """systemd's notification socket; silent where there is none."""

    def __init__(self) -> None:
        self.address = os.environ.get("NOTIFY_SOCKET", "")
        self._status = ""

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def _send(self, message: str) -> None:
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(1.0)
            try:
                channel.sendto(message.encode(), address)
            except OSError:
                self.address = ""
