"""What a worker does to itself so that it never outlives the daemon or takes its memory.

Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that spawned it ends, in any code.

    Ends this process at once if its parent is not `parent_pid`: that one is gone, and the signal
    would never come.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent_pid:
        kill_group()


def kill_group() -> NoReturn:
    """Kill this process and the programs it started, at once and without clean-up."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def raise_oom_score(score: int = 500) -> None:
    """Have the OOM killer choose this process before the daemon, unless /proc is read-only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score))


def make_device_files() -> None:
    """Make the device file of CUDA where it is missing: a process without privileges can't have it made."""
    if not Path("/dev/nvidia-uvm").exists() and (program := shutil.which("nvidia-modprobe")):
        subprocess.run([program, "-u", "-c=0"], check=False, timeout=60)  # noqa: S603  the driver's own program
