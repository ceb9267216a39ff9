"""Walls that a worker puts around itself before it opens anything: what they keep out is in docs/security.md.

Linux only. A wall can be made higher later, never lower.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from gpu_pool.walls.landlock import explain_version, read_version, restrict_files
from gpu_pool.walls.privileges import drop_privileges, limit_resources
from gpu_pool.walls.seccomp import has_seccomp, restrict_calls


@dataclass(frozen=True, slots=True)
class Walls:
    """What a worker may do.

    read, write   folders and files, with all below them; `read` counts only where `hides_files`;
                  folders of `write` that are missing are made where their parents exist
    driver        like `write`, and it may make links, pipes, sockets and devices there
    temp          the folder for temporary files, "" for the usual one; like `write`
    hides_files   whether it can open nothing else even for reading
    is_alone      whether it can start no program and no process, open no socket and signal no other
    memory_bytes  of address space, beyond what the machine has; 0: any
    file_bytes    of a file that it writes; 0: any
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    driver: tuple[str, ...] = ()
    temp: str = ""
    hides_files: bool = True
    is_alone: bool = True
    memory_bytes: int = 0
    file_bytes: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Walls:
        data = json.loads(text)
        return cls(**data | {name: tuple(data[name]) for name in ("read", "write", "driver")})


class Gates:
    """The folders that are open in the walls, as they were then: a rule is about a folder, not about its name.

    After a share was mounted anew, or its inbox made anew, only a new worker can open what is there.
    It is made just before the walls: a folder that has come between then and `note_walls` has no rule.
    """

    def __init__(self, walls: Walls) -> None:
        self._paths = (*walls.read, *walls.write)
        self._errors = self._open_all()

    def note_walls(self) -> None:
        """Find out what can be opened inside the walls; what was missing before them counts as missing."""
        pairs = zip(self._errors, self._open_all(), strict=True)
        self._errors = [before if before == errno.ENOENT else now for before, now in pairs]

    def have_moved(self) -> bool:
        """Whether one can be opened that could not before, or the other way round."""
        return self._open_all() != self._errors

    def _open_all(self) -> list[int]:
        return [_try_open(path) for path in self._paths]


def _try_open(path: str) -> int:
    """Return the number of the error, 0 for none."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or -1
    return 0


def raise_walls(walls: Walls) -> tuple[Gates, list[str]]:
    """Put the walls around this process; call it before it has a second thread.

    Return the gates, and what the kernel here does not have. Nothing of it is fatal: `musedrop doctor` names it.
    """
    write = (*walls.write, walls.temp) if walls.temp else walls.write
    if walls.temp:
        os.environ["TMPDIR"] = walls.temp
    for folder in map(Path, (*write, *walls.driver)):
        with contextlib.suppress(OSError):
            if folder.parent.stat().st_uid == os.geteuid():  # else only a person should make it
                folder.mkdir(0o700)
    limit_resources(walls.memory_bytes, walls.file_bytes)
    drop_privileges()
    gates = Gates(walls)
    missing = restrict_files(walls.read, write, walls.driver, hides_files=walls.hides_files)
    reasons = [reason for reason in (missing, restrict_calls(is_alone=walls.is_alone)) if reason]
    gates.note_walls()
    return gates, reasons


def explain_kernel() -> list[str]:
    """Return what the walls of workers lack with this kernel."""
    return [*explain_version(read_version()), *(() if has_seccomp() else (NO_FILTER,))]


NO_FILTER = "the kernel has no filter of system calls for this machine: workers may use all of them"
