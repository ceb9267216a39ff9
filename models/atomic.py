"""Files and folders that appear whole or not at all. Standard library only."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from models.types import EngineError

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on a clean exit it is synced and renamed to `path`, else removed.

    The name is unique, so that two processes writing the same file never write into each other's.
    Raises EngineError disk_full where the disk is full; any other error passes through.
    """
    beside = _temp_path(path)
    try:
        with translate_full_disk(path.name):
            yield beside
            sync(beside)
            beside.replace(path)
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
