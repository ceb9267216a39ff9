"""What a worker does to itself so that it never outlives the daemon and never outweighs it. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that spawned it ends, even inside native code.

    `parent` is the pid that spawned us: if it is gone already, the signal would never come, so we end here.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        end_group()


def end_group() -> NoReturn:
    """Kill this process and the programs it started, at once and without clean-up."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def volunteer_for_oom_killer(score: int = 500) -> None:
    """Ask the kernel to take this process before the daemon when memory runs out; where /proc is sealed, go without."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score))
