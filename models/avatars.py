"""The avatar cache: what was prepared of an avatar, by content, whole or not at all, shared by all workers."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.atomic import whole_folder

MANIFEST = "manifest.json"


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_key(*parts: object) -> str:
    """One name for everything that an entry depends on; the parts are JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class AvatarCache:
    """Folders by key below `root`, together at most about `max_bytes`; the least recently used goes first."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root, self.max_bytes = root, max_bytes
        root.mkdir(parents=True, exist_ok=True)

    def entry(self, key: str, build: Callable[[Path], None]) -> Path:
        """The folder of `key`, made by `build(empty folder)` if it isn't there whole.

        Of several processes that want the same key, one builds and the others wait for it. Whatever `build` raises
        passes through and leaves nothing behind.
        """
        folder = self.root / key
        with self._locked(key):
            if not whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                with whole_folder(folder) as beside:
                    build(beside)
                    (beside / MANIFEST).write_text(json.dumps(sizes(beside)))
            os.utime(folder)
        self._trim(key)
        return folder

    def size(self) -> int:
        """Bytes of all whole entries."""
        return sum(entry_bytes(folder) for folder in self._entries())

    def _entries(self) -> list[Path]:
        return [path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")]

    def _trim(self, keep: str) -> None:
        oldest = sorted((path for path in self._entries() if path.name != keep), key=last_used)
        excess = self.size() - self.max_bytes
        for folder in oldest:
            if excess <= 0:
                return
            with self._locked(folder.name, wait=False) as mine:
                if mine:
                    excess -= entry_bytes(folder)
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _locked(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the key's lock, which the kernel frees however we end; False where it is taken and we don't wait."""
        fd = os.open(self.root / f".{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)


def whole(folder: Path) -> bool:
    """Whether every file of the manifest is there in its size."""
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())
        return isinstance(listed, dict) and listed == sizes(folder)
    except (OSError, ValueError):
        return False


def sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def entry_bytes(folder: Path) -> int:
    return sum(sizes(folder).values())


def last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
