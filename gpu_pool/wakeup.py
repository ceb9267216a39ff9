"""A flag that another thread or a signal handler raises, and that a selector sees."""

from __future__ import annotations

import contextlib
import socket


class Wakeup:
    """`fileno()` is readable while the flag is raised; `signal_fd` is for signal.set_wakeup_fd."""

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
        """Raise the flag, from any thread or signal handler, at any time, even after close()."""
        with contextlib.suppress(OSError):  # full: the flag is raised already; closed: no poll waits for it
            self._writer.send(b"\0")

    def lower_flag(self) -> bool:
        """Lower the flag; return whether it was raised."""
        was_raised = False
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                was_raised = True
        return was_raised

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
