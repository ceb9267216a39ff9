"""The programs that open the videos of strangers for a command: what they print, or why they print nothing."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from agent.errors import UserError

MOST_REASON_CHARS = 300


def open_video(path: Path) -> BinaryIO:
    """Open a regular file, at once. Raises UserError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no path"
        raise UserError(f"{path} can't be read: {reason}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UserError(f"{path} can't be read: it is no file")
    return os.fdopen(fd, "rb")


def run_program(module: str, args: Sequence[str], timeout_s: float, video: BinaryIO | None = None) -> str:
    """Return what a module of ours prints. Raises UserError with its words, or how it ended.

    video  its standard input
    """
    from gpu_pool.process import build_python_path

    env = {**os.environ, "PYTHONPATH": build_python_path(os.environ)}
    command = [sys.executable, "-P", "-m", module, *args]
    stdin = subprocess.DEVNULL if video is None else video
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command, stdin=stdin, env=env, capture_output=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"it takes longer than {timeout_s:g} s") from error
    if not done.returncode:
        return done.stdout.decode(errors="replace")
    raise UserError(explain_end(done.returncode, done.stderr.decode(errors="replace")))


def explain_end(code: int, stderr: str) -> str:
    """Return why a program printed nothing: its last words, or the signal that ended it."""
    if code < 0:
        name = signal.Signals(-code).name
        return "it takes too much time" if name == "SIGXCPU" else f"the program that reads it was ended by {name}"
    return " ".join(stderr.split())[-MOST_REASON_CHARS:] or f"the program that reads it ended with {code}"
