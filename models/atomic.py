"""Write files and folders that appear complete or not at all; hash and lock files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from models.nofollow import open_folder
from models.types import EngineError

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT}
BLOCK_BYTES = 1 << 20


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield the path of a new file; at a clean exit it is renamed to `path`, else removed.

    The yielded path is that of an open file: what is written to it goes there, whatever happens to
    its name, which no other process can know before. With `durable` the file and its name are
    synced, to survive a power cut. Raises EngineError disk_full; other errors pass.
    """
    temp_path = make_temp_path(path)
    try:
        with translate_full_disk(path.name):
            handle = os.open(temp_path, _NEW_FILE, 0o666)
            try:
                yield Path(f"/proc/self/fd/{handle}")
                if durable:
                    os.fsync(handle)
            finally:
                os.close(handle)
            temp_path.replace(path)
            if durable:
                sync(path.parent)
    finally:
        temp_path.unlink(missing_ok=True)


@contextmanager
def atomic_write_by_name(path: Path) -> Iterator[Path]:
    """Yield the name of a new file, for libraries that write and rename by name; otherwise like `atomic_write`.

    Only for folders that no other user may write to, such as the models folder.
    """
    temp_path = make_temp_path(path)
    try:
        with translate_full_disk(path.name):
            yield temp_path
            sync(temp_path)
            temp_path.replace(path)
            sync(path.parent)
    finally:
        temp_path.unlink(missing_ok=True)


@contextmanager
def hold_folder(path: Path) -> Iterator[Path]:
    """Yield a path that stays that of this folder, whatever happens to its name.

    Raises OSError where a part of `path` is a link.
    """
    handle = open_folder(path)
    try:
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, which must not exist; otherwise like `atomic_write`."""
    temp_path = make_temp_path(path)
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
    """Turn "no space left" and "quota exceeded" into EngineError disk_full about `name`."""
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


def make_temp_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{token_hex(16)}.tmp")


def hash_file(path: Path, tick: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 in hexadecimal; `tick` is called with the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            tick(done)
    return digest.hexdigest()


def lock(handle: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed. False if another process holds it, unless `wait`."""
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, how if wait else how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
