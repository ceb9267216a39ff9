"""Named places where a test may make a process fail.

Without the environment variable they do nothing.
"""

from __future__ import annotations

import errno
import os
import signal

VARIABLE = "MUSEDROP_FAILPOINT"


def failpoint(name: str) -> None:
    """Fail here if the variable says so: "NAME:ACTION:FLAG", several separated by commas.

    ACTION is kill (SIGKILL), stop (SIGSTOP), raise (RuntimeError) or enospc (OSError). FLAG is a
    file that is created when the place is reached for the first time; while it exists, no process
    fails at this place.
    """
    for entry in os.environ.get(VARIABLE, "").split(","):
        place, _, rest = entry.partition(":")
        if place == name:
            action, _, flag = rest.partition(":")
            if _create_flag(flag):
                _fail(name, action)


def _create_flag(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def _fail(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action == "raise":
        raise RuntimeError(f"failpoint {name}")
