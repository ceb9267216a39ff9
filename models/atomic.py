"""Files and folders that appear whole or not at all, their hashes and locks. Standard library only."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from models.types import EngineError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_BLOCK_BYTES = 1 << 20


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on a clean exit it is renamed to `path`, else removed.

    With `durable` the file and its name are synced, to survive a power cut.
    The name is unique, so that two processes writing the same file never write into each other's.
    Raises EngineError disk_full where the disk is full; any other error passes through.
    """
    beside = _temp_path(path)
    try:
        with translate_full_disk(path.name):
            yield beside
            if durable:
                sync(beside)
            beside.replace(path)
            if durable:
                sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Like `atomic_write` for a folder that does not exist yet; yields an empty one to fill. All of it is synced."""
    beside = _temp_path(path)
    try:
        with translate_full_disk(path.name):
            beside.mkdir()
            yield beside
            for inner in sorted(beside.rglob("*"), reverse=True):
                sync(inner)
            sync(beside)
            beside.rename(path)
            sync(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def translate_full_disk(name: str) -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" into EngineError disk_full about the file `name`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise EngineError(
            "disk_full",
            f"the disk filled up while {name} was written",
            "free some space, or move the state folder to a larger disk; the job goes on where it stopped",
            retry=True,
        ) from error


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temp_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex[:12]}.tmp")


def hash_file(path: Path, tick: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 of the content, as 64 hexadecimal digits; `tick` is told the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            tick(done)
    return digest.hexdigest()


def lock(handle: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file. False if another process holds its lock, unless `wait`. Closing the file releases it."""
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, how if wait else how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
