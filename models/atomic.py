"""Write files and folders that appear complete or not at all. Standard library only."""

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
    """Yield a temporary path beside `path`; at a clean exit sync it and rename it to `path`, else remove it.

    Its name is unique, so that two processes can write the same file at once.
    Raises EngineError disk_full; other errors pass.
    """
    temp_path = _make_temp_path(path)
    try:
        with translate_full_disk(path.name):
            yield temp_path
            sync(temp_path)
            temp_path.replace(path)
            sync(path.parent)
    finally:
        temp_path.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, which must not exist; otherwise like `atomic_write`."""
    temp_path = _make_temp_path(path)
    try:
        with translate_full_disk(path.name):
            temp_path.mkdir()
            yield temp_path
            for inner in sorted(temp_path.rglob("*"), reverse=True):
                sync(inner)
            sync(temp_path)
            temp_path.rename(path)
            sync(path.parent)
    finally:
        shutil.rmtree(temp_path, ignore_errors=True)


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


def _make_temp_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex[:12]}.tmp")
