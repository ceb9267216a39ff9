"""File events of the inbox, as inotify(7) has them.

They only make the next scan come sooner; a lost event delays a job by one period.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from threading import Lock, Thread

CLOSE_WRITE, MOVED_TO, CREATE, Q_OVERFLOW, ONLYDIR = 0x8, 0x80, 0x100, 0x4000, 0x1000000
"""Bits of events, and of what is asked for. What leaves the folder, as every claimed file does, is no news."""
HEADER = struct.Struct("iIII")
BUFFER_BYTES = 1 << 16


class InboxWatcher:
    """Wakes the daemon when a file of the inbox is created, closed or renamed into place."""

    def __init__(self, folder: Path, wake: Callable[[], None]) -> None:
        self.folder, self.wake = folder, wake
        self.moved: set[str] = set()
        self._names: set[str] = set()
        self._lock = Lock()
        self.touched = False
        self.problem = ""
        self._open = ExitStack()
        self._thread: Thread | None = None
        self._inode = 0

    def note(self, bits: int, name: str) -> None:
        """Take an event over; only the first one since the last `take_events` wakes the daemon."""
        with self._lock:
            if bits & MOVED_TO:
                self.moved.add(name)
            if name:
                self._names.add(name)
            is_first, self.touched = not self.touched, True
        if is_first:
            self.wake()

    def take_events(self) -> tuple[set[str], set[str]]:
        """Return the names that had an event since the last call, and those of them that were renamed into place.

        Both at once: a scan that looks at the first alone finds all of the second.
        """
        with self._lock:
            self.touched = False
            names, moved = self._names, self.moved
            self._names, self.moved = set(), set()
        return names | moved, moved

    def take_moved(self) -> set[str]:
        """Return the names that were renamed into place since the last call; all other events are forgotten."""
        return self.take_events()[1]

    @property
    def is_alive(self) -> bool:
        """Whether events still arrive: the thread runs, and the folder is still the same."""
        if self._thread is None or not self._thread.is_alive():
            return False
        try:
            return self.folder.stat().st_ino == self._inode
        except OSError:
            return False

    def start(self) -> bool:
        """Watch the folder as it is now.

        False, and `problem` says why, where that is not possible.
        """
        self.stop()
        try:
            self._inode = self.folder.stat().st_ino
            events, end = open_inotify(), os.eventfd(0, os.EFD_CLOEXEC)
            self._open.callback(os.close, events)
            self._open.callback(os.close, end)
            add_watch(events, self.folder)
            self._thread = Thread(target=self._read_all, args=(events, end), name="inotify", daemon=True)
            self._thread.start()
            self._open.callback(self._thread.join, 2.0)
            self._open.callback(os.eventfd_write, end, 1)
        except (OSError, RuntimeError) as error:  # no instance, descriptor, watch or thread left
            self.stop()
            reason = error.strerror if isinstance(error, OSError) else error
            self.problem = f"the inbox sends no file events, it is polled: {reason}"
            return False
        return True

    def stop(self) -> None:
        self.problem = ""
        self._open.close()
        self._thread = None

    def _read_all(self, events: int, end: int) -> None:
        """Take events over until `end` can be read."""
        poll = select.poll()
        for fd in (events, end):
            poll.register(fd, select.POLLIN)
        while end not in (ready := {fd for fd, _ in poll.poll()}):
            if events in ready:
                with suppress(BlockingIOError):
                    for bits, name in split_events(os.read(events, BUFFER_BYTES)):
                        self.note(bits, name)


def split_events(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the bits and the name of each event; "" where events were lost, or the folder itself is meant."""
    at = 0
    while at < len(data):
        _, bits, _, length = HEADER.unpack_from(data, at)
        at += HEADER.size + length
        yield bits, os.fsdecode(data[at - length : at].rstrip(b"\0"))


def open_inotify() -> int:
    """Return the descriptor of a new instance. Raises OSError where there is none left."""
    return _check(_load_libc().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))


def add_watch(fd: int, folder: Path) -> None:
    """Have events of what comes into a folder. Raises OSError."""
    wanted = CLOSE_WRITE | MOVED_TO | CREATE | ONLYDIR
    _check(_load_libc().inotify_add_watch(fd, os.fsencode(folder), ctypes.c_uint32(wanted)))


@cache
def _load_libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
