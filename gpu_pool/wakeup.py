"""A flag that another thread or a signal handler raises, and that a selector sees."""

from __future__ import annotations

import contextlib
import socket


class Wakeup:
    """`fileno()` is readable while the flag is up; `signal_fd` is for signal.set_wakeup_fd."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    @property
    def signal_fd(self) -> int:
        return self._writer.fileno()

    def raise_flag(self) -> None:
        """From any thread or signal handler, at any time, even after close()."""
        with contextlib.suppress(OSError):  # full: it is up already; closed: nobody waits any more
            self._writer.send(b"\0")

    def lower_flag(self) -> bool:
        """Whether it was up."""
        was_up = False
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                was_up = True
        return was_up

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
