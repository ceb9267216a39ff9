"""The daemon as a process: one for each state folder, its signals, and how long it may drain."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from agent.errors import UserError
from agent.fs import try_lock
from agent.fs.folders import make_folders

STDERR = 2
ALIVE_S = 15.0
"""Seconds between two signs of life on the lock file."""
OWNER_ONLY = 0o700
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def open_closed_streams(log_file: Path) -> str:
    """Give the process the standard streams that it was started without: later files would take their numbers.

    A closed stderr becomes `log_file`. Return what an operator must know, "" if nothing.
    """
    closed = [number for number in range(3) if not _is_open(number)]
    for number in closed:
        target = log_file if number == STDERR else Path(os.devnull)
        make_folders([target.parent], OWNER_ONLY)
        fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        if fd != number:
            os.dup2(fd, number)
            os.close(fd)
        os.set_inheritable(number, True)
    if STDERR not in closed:
        return ""
    sys.stderr = os.fdopen(STDERR, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    return f"the daemon was started without stderr: its log is {log_file}"


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class AlreadyRunning(UserError):
    """Another daemon uses the state folder; the message names its process."""


class InstanceLock:
    """One daemon for each state folder. The kernel releases the lock however the process ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not try_lock(self._fd):
            holder = os.read(self._fd, 32).decode().strip() or "unknown"
            os.close(self._fd)
            raise AlreadyRunning(f"another musedrop daemon (process {holder}) uses {path.parent}: stop it first")
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())
        self._touched_s = -ALIVE_S

    def note_alive(self, now_s: float) -> None:
        """Give the lock file the time of now, every `ALIVE_S`: readers see when a daemon that was killed was alive."""
        if now_s - self._touched_s >= ALIVE_S:
            self._touched_s = now_s
            with suppress(OSError):
                os.utime(self._fd)

    def release(self) -> None:
        with suppress(OSError):
            os.utime(self._fd)
        os.close(self._fd)


def read_daemon_pid(path: Path) -> int | None:
    """Return the process that holds the lock file, None if no process does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if try_lock(fd, shared=True) else int(os.read(fd, 32).decode().strip() or 0)
    finally:
        os.close(fd)


def let_group_read() -> None:
    """Let the group of the share read what this process and its workers publish, whatever the umask it began with."""
    os.umask(os.umask(0o077) & ~0o050)


class Signals:
    """Counts SIGTERM and SIGINT: the first asks for a drain, the second for an end at once.

    SIGHUP asks for a reload, except from a terminal that closes. The handlers only count and wake.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.stop_requests = 0
        self._reload = False
        self._wake = wake
        at_terminal = sys.stdin is not None and sys.stdin.isatty()
        numbers = STOP_SIGNALS if at_terminal else (*STOP_SIGNALS, signal.SIGHUP)
        self._handlers_before = {number: signal.signal(number, self._count) for number in numbers}

    def _count(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self.stop_requests += 1
        self._wake()

    def take_reload(self) -> bool:
        """Return whether a SIGHUP came since the last call."""
        asked, self._reload = self._reload, False
        return asked

    def restore(self) -> None:
        """Give the signals back to their earlier handlers."""
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)


class Drain:
    """The limit of a drain and the progress of running spans; times are monotonic seconds."""

    def __init__(self, now_s: float, limit_s: float) -> None:
        self._end_s = now_s + limit_s
        self._units_done = -1

    def is_over(self, now_s: float) -> bool:
        return now_s >= self._end_s

    def note_progress(self, units_done: int) -> bool:
        """Record the units of running spans; return whether they differ from the last call's.

        The first call does.
        """
        before, self._units_done = self._units_done, units_done
        return units_done != before
