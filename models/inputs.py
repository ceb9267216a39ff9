"""Copy the media of a job to where no other process changes them. Standard library only.

A file that is written in place may keep its size, and its time can be set back: so pieces of it are compared, too.
The time of its last change of any kind is no help, since rights and further links change it as well.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import BinaryIO

from models.atomic import BLOCK_BYTES, atomic_write
from models.nofollow import open_folder, open_nofollow
from models.types import EngineError

PIECES, PIECE_BYTES = 8, 2048
"""What is read of a file for its sample; a shorter one is read whole."""
LINKS = (errno.ELOOP, errno.ENOTDIR, errno.EXDEV)
"""Errors of a path in which a folder, or the file, has become a link or something else."""


def copy_input(
    source: Path,
    target: Path,
    limit_bytes: int,
    mark: Sequence[int] = (),
    tick: Callable[[int], None] = lambda _: None,
) -> str:
    """Copy `source` to `target`, which appears by rename. Return the SHA-256 of what was copied.

    The source is opened once, and no part of its path may be a link. `mark`: inode, size, mtime (nanoseconds) and
    `take_sample` of the file when its job was accepted; none are compared where it is empty.
    `tick` is called with the bytes copied so far. Errors name the user's file.

    Raises EngineError media_too_large, missing_media, media_changed.
    """
    with os.fdopen(_open_source(source), "rb", buffering=0) as file:
        _compare(source.name, file, mark)
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            message = f"{source.name} has {size / 2**20:.0f} MiB; the limit is {limit_bytes / 2**20:.0f} MiB"
            raise EngineError("media_too_large", message, "send a smaller file, or raise limits.media_mib")
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target, durable=False) as temp_path, temp_path.open("w+b", buffering=0) as copy:
            digest = _copy(source, file, copy, size, tick)
            _compare(source.name, file, mark)
            if os.fstat(copy.fileno()).st_size != size or not has_sample(copy.fileno(), mark):
                raise changed_error(source.name)
    return digest


def take_sample(fd: int, seed: int) -> tuple[int, int]:
    """Return `seed` and a hash of pieces of a file, at places which only those know who know the seed.

    Of a folder it is a hash of the names, sizes and times (mtime, nanoseconds) of its entries. Raises OSError.
    """
    digest, status = hashlib.blake2b(seed.to_bytes(8), digest_size=7), os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            entry = os.stat(name, dir_fd=fd, follow_symlinks=False)
            digest.update(b"%s/%d/%d/" % (name, entry.st_size, entry.st_mtime_ns))
        return seed, int.from_bytes(digest.digest())
    last = status.st_size - PIECE_BYTES
    if last <= (PIECES - 1) * PIECE_BYTES:
        places, length = [0], PIECES * PIECE_BYTES
    else:
        chance = Random(seed)
        places, length = [0, last, *(chance.randrange(last) for _ in range(PIECES - 2))], PIECE_BYTES
    for place in places:
        digest.update(os.pread(fd, length, place))
    return seed, int.from_bytes(digest.digest())


def compare_folder(folder: Path, mark: Sequence[int]) -> None:
    """Raise media_changed if a folder is not as the mark says. Raises OSError."""
    fd = open_folder(folder)
    try:
        status = os.fstat(fd)
        is_same = not mark or (status.st_ino, status.st_size, status.st_mtime_ns) == tuple(mark[:3])
        if not is_same or not has_sample(fd, mark):
            raise changed_error(folder.name)
    finally:
        os.close(fd)


def has_sample(fd: int, mark: Sequence[int]) -> bool:
    """Whether a file or folder has the sample of a mark; True for a mark without one."""
    return len(mark) < 5 or take_sample(fd, mark[3])[1] == mark[4]


def _open_source(source: Path) -> int:
    try:
        fd = open_nofollow(source, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        message = f"{source.name} was there when the job was accepted and is gone now"
        raise EngineError("missing_media", message, "drop it again and retry the job", retry=True) from None
    except OSError as error:
        if error.errno in LINKS:
            raise changed_error(source.name) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise changed_error(source.name)
    return fd


def _compare(name: str, file: BinaryIO, mark: Sequence[int]) -> None:
    """Raise media_changed if the open file is not, or no longer, as the mark says."""
    status = os.fstat(file.fileno())
    if mark and (status.st_ino, status.st_size, status.st_mtime_ns) != tuple(mark[:3]):
        raise changed_error(name)


def _copy(source: Path, file: BinaryIO, copy: BinaryIO, size: int, tick: Callable[[int], None]) -> str:
    """Copy until the end, but not much more than `size` bytes of a file that grows."""
    digest, done = hashlib.sha256(), 0
    while done <= size and (block := _read_block(file, source)):
        digest.update(block)
        view = memoryview(block)
        while view:
            view = view[copy.write(view) :]
        done += len(block)
        tick(done)
    return digest.hexdigest()


def _read_block(file: BinaryIO, source: Path) -> bytes:
    try:
        return file.read(BLOCK_BYTES)
    except OSError as error:
        error.filename = str(source)
        raise


def changed_error(name: str) -> EngineError:
    message = f"{name} is not the file that it was when the job was accepted: it was changed or replaced"
    return EngineError("media_changed", message, "`musedrop retry` the job: it takes the file as it is then")
