"""The daemon's manners as a service: one instance, signals, and what systemd is told."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from types import FrameType

from agent.errors import UserError

log = logging.getLogger("musedrop")
WAKERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
    """SIGTERM and SIGINT ask for a drain, a second one for an end at once; SIGHUP asks to read the settings again,
    except from a terminal that closes. Handlers only count and wake.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.asked = 0
        self._reload = False
        self._wake = wake
        numbers = WAKERS[:2] if sys.stdin is not None and sys.stdin.isatty() else WAKERS
        self._before = {number: signal.signal(number, self._count) for number in numbers}

    def _count(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self.asked += 1
        self._wake()

    def take_reload(self) -> bool:
        """Whether there was a SIGHUP since the last call."""
        asked, self._reload = self._reload, False
        return asked

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

    def reloading(self) -> None:
        self._send("RELOADING=1")

    def extend(self, seconds: float) -> None:
        """Starting or stopping may take so much longer, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

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
                channel.sendto(message.encode("utf-8", "replace"), address)
            except TimeoutError:
                return  # systemd is busy: it will hear the next one
            except OSError:
                self.address = ""


class Watchdog:
    """systemd restarts a service that doesn't say within `WatchdogSec=` that it is well; here it says so."""

    def __init__(self, notifier: Notifier, env: Mapping[str, str] = os.environ) -> None:
        ours = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit_s = int(env.get("WATCHDOG_USEC", 0)) / 1e6 if ours else 0.0
        self.notifier, self.period_s = notifier, limit_s / 2 if limit_s else inf
        self.due = 0.0

    def feed(self, now: float, illness: str) -> None:
        """Say once in a period that all is well, if it is."""
        if now < self.due:
            return
        self.due = now + self.period_s
        if illness:
            log.error("the watchdog is not fed: %s", illness)
        else:
            self.notifier.alive()


class Drain:
    """How long running spans may go on after a stop was asked for: while they advance, up to a limit."""

    def __init__(self, now: float, limit_s: float) -> None:
        self._until = now + limit_s
        self._done = -1

    def over(self, now: float) -> bool:
        return now >= self._until

    def advances(self, units_done: int) -> bool:
        """Whether there is news of the running spans since the last call; the first call is news, too."""
        before, self._done = self._done, units_done
        return units_done != before
