"""Walls that a worker puts around itself before it opens anything: what they keep out is in docs/security.md.

Linux only. A wall can be made higher later, never lower.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gpu_pool.walls.landlock import restrict_files
from gpu_pool.walls.privileges import drop_privileges, limit_resources
from gpu_pool.walls.seccomp import restrict_calls


@dataclass(frozen=True, slots=True)
class Walls:
    """What a worker may do.

    read, write   folders and files, with all below them; `read` counts only where `hides_files`
    hides_files   whether it can open nothing else even for reading
    is_alone      whether it can start no program and no process, open no socket and signal no other
    memory_bytes  of address space, beyond what the machine has; 0: any
    file_bytes    of a file that it writes; 0: any
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    hides_files: bool = True
    is_alone: bool = True
    memory_bytes: int = 0
    file_bytes: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Walls:
        data = json.loads(text)
        return cls(**{**data, "read": tuple(data["read"]), "write": tuple(data["write"])})


class Gates:
    """The folders that are open in the walls, as they were then: a rule is about a folder, not about its name.

    After a share was mounted anew, or its inbox made anew, only a new worker can open what is there.
    """

    def __init__(self, walls: Walls) -> None:
        self._paths = (*walls.read, *walls.write)
        self._marks = self._read_marks()

    def have_moved(self) -> bool:
        return self._read_marks() != self._marks

    def _read_marks(self) -> list[tuple[int, int] | None]:
        return [_read_mark(path) for path in self._paths]


def _read_mark(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def raise_walls(walls: Walls) -> list[str]:
    """Put the walls around this process; call it before it has a second thread.

    Return what the kernel here does not have. Nothing of it is fatal: `musedrop doctor` names it.
    """
    limit_resources(walls.memory_bytes, walls.file_bytes)
    drop_privileges()
    missing = restrict_files(walls.read, walls.write, hides_files=walls.hides_files)
    return [reason for reason in (missing, restrict_calls(is_alone=walls.is_alone)) if reason]
