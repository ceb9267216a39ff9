"""The byte pipe to the agent of a node: a program that reads and writes it, such as `ssh`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gpu_pool.process import open_log

READ_BYTES = 1 << 18
LAST_WORDS_BYTES = 500
KILL_S = 1.0


class Link(Protocol):
    """A pipe to a node. No method blocks, and none raises."""

    def fileno(self) -> int:
        """Readable when something has arrived, or the pipe has ended."""
        ...

    def send(self, data: bytes) -> bool:
        """Send data, or keep it; return whether all is sent. If not, call again with b"" when it takes more."""
        ...

    def receive(self) -> bytes | None:
        """Return what has arrived, None if nothing has, b"" at the end of the pipe."""
        ...

    def explain_end(self) -> str:
        """Return why it has ended, as far as that is known, "" if it isn't."""
        ...

    def close(self, wait_s: float = 0.0) -> None:
        """End the pipe, at which the agent at its other end ends its workers; wait so long for that."""
        ...


OpenLink = Callable[[], Link]
"""Opens a link. Raises OSError."""


class CommandLink:
    """A program whose standard input and output lead to the agent: `ssh box2 ... -m gpu_pool.agent`.

    What it writes to stderr goes to `log`; `env` is its environment, None for that of this process.
    OSError if it can't be started.
    """

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._log = log
        self._unsent = bytearray()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        try:
            with theirs, open_log(log, "a node") as output:
                self._log_start = output.tell()
                self._popen = subprocess.Popen(  # noqa: S603  the operator's own words, no shell
                    list(command),
                    env=env,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=output,
                    start_new_session=True,
                )
        except OSError:
            self._channel.close()
            raise

    def fileno(self) -> int:
        return self._channel.fileno()

    def send(self, data: bytes) -> bool:
        self._unsent += data
        try:
            while self._unsent:
                del self._unsent[: self._channel.send(self._unsent)]
        except BlockingIOError:
            return False
        except OSError:  # it is ending; `receive` reports that
            self._unsent.clear()
        return True

    def receive(self) -> bytes | None:
        try:
            return self._channel.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def explain_end(self) -> str:
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            return log.read(LAST_WORDS_BYTES).decode(errors="replace").strip().rpartition("\n")[2]
        return ""

    def close(self, wait_s: float = 0.0) -> None:
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(wait_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(KILL_S)
