"""A program on a terminal of its own, as a person would use it."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

WAIT_S = 60.0


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, words: list[str], env: dict[str, str], folder: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(words[0], words, env)  # noqa: S606  the shell that is tested
        self.shown = ""

    def type(self, keys: str) -> None:
        self.shown = ""
        os.write(self.fd, keys.encode())

    def wait_for(self, *texts: str, timeout_s: float = WAIT_S) -> None:
        """Read until all texts were shown since the last keys."""
        end_s = time.monotonic() + timeout_s
        while not all(text in self.shown for text in texts):
            assert time.monotonic() < end_s, f"{texts} not in {self.shown!r}"
            if select.select([self.fd], [], [], 0.5)[0]:
                data = os.read(self.fd, 1 << 16).decode("utf-8", "replace")
                self.shown += data
                if "\x1b[c" in data:  # fish asks what the terminal can
                    os.write(self.fd, b"\x1b[?62;c")

    def complete(self, keys: str, text: str) -> None:
        """Press tab until a text is shown: zsh does nothing but load the script the first time."""
        self.type(keys)
        end_s = time.monotonic() + WAIT_S
        while text not in self.shown:
            assert time.monotonic() < end_s, f"{text} not in {self.shown!r}"
            os.write(self.fd, b"\t")
            with suppress(AssertionError):
                self.wait_for(text, timeout_s=10.0)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)

    def wait_for_end(self) -> int:
        """Read to the end; return the exit code."""
        with suppress(OSError):  # EIO is how a terminal ends
            while data := os.read(self.fd, 1 << 16):
                self.shown += data.decode("utf-8", "replace")
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)
