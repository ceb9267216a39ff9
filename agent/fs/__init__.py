"""Files and folders: facts, fingerprints, locks, and changes that survive a crash.

Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from secrets import token_hex
from threading import Semaphore
from typing import Any, BinaryIO, ParamSpec, TypeVar

from agent.fs.folders import get_kept, hold_folder, make_folders, move, remove, share_kept, sync
from models.nofollow import open_nofollow

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

REMOTE = {"cifs", "smb3", "smbfs", "nfs", "nfs4", "9p", "virtiofs", "vboxsf", "ceph", "glusterfs", "afs"}
ORDERED = {"ext4", "xfs", "tmpfs"}
"""File systems whose fsync writes their journal up to the present moment, whichever folder it is asked for."""
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
LONGEST_NAME_BYTES = 100
THREADS = 8
_deletions = Semaphore(256)
"""Folders that may wait to be deleted; further ones are deleted at once, so that they do not fill the disk."""
NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG}
"""Errors of a path at which there is no such file, or one that a link leads to."""
BLOCK_BYTES, SMALL_BLOCK_BYTES = 1 << 20, 1 << 14
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# facts ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies a file and its content without reading it."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def from_stat(cls, status: os.stat_result) -> Fingerprint:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fingerprint:
        return cls(data["inode"], data["size"], data["mtime_ns"])


def take_fingerprint(path: Path, *, of_folder: bool = False, strict: bool = False) -> Fingerprint | None:
    """Return the fingerprint of a regular file, or of a folder, None for anything else, and where any part of the path
    is a link.

    That of a folder is another one when an entry comes, goes or gets another name.
    With `strict` it raises the OSError of a path of which can't be known what is there.
    """
    try:
        fd = open_nofollow(path, os.O_PATH)
    except (OSError, ValueError) as error:
        if strict and isinstance(error, OSError) and error.errno not in NOT_THERE:
            raise
        return None
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    is_wanted = stat.S_ISDIR if of_folder else stat.S_ISREG
    return Fingerprint.from_stat(status) if is_wanted(status.st_mode) else None


def is_file(path: Path) -> bool:
    """Like Path.is_file, but False where a mount is dead or the name is impossible."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def follow_links(path: Path) -> Path:
    """Return the path with links followed.

    Unlike Path.resolve it accepts loops, which users can make, and overlong names.
    """
    return Path(os.path.realpath(path))


def has_ordered_renames(kind: str) -> bool:
    """Whether its journal has one order, so that a folder that is flushed has all earlier renames flushed with it."""
    return kind in ORDERED


def is_folder(path: Path) -> bool:
    """Like Path.is_dir, but False where a mount is dead or the name is impossible."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_disk_full(error: OSError) -> bool:
    """Whether the error means "no space left" or "quota exceeded"."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def find_filesystem_kind(path: Path) -> str:
    """Return the kernel's name of a file system ("ext4", "cifs"), "unknown" without /proc."""
    best, kind = -1, "unknown"
    target = str(follow_links(path))
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return kind
    for line in lines:
        head, _, tail = line.partition(" - ")
        mount = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), head.split()[4])
        inside = mount == "/" or target == mount or target.startswith(mount + "/")
        if inside and len(mount) >= best:
            best, kind = len(mount), tail.split()[0]
    return kind


def has_change_events(kind: str) -> bool:
    """Whether inotify reports what other machines write. It doesn't on FUSE and network mounts."""
    return kind not in REMOTE and not kind.startswith("fuse")


# reading -------------------------------------------------------------------------------------------------------------


def open_regular(path: Path) -> int:
    """Open a regular file for reading; follow a link nowhere in its path, never wait for the other end of a pipe."""
    fd = open_nofollow(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


@contextmanager
def open_fd(fd: int) -> Iterator[int]:
    """Close the descriptor at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


def read_bytes(fd: int, limit_bytes: int) -> bytes:
    """Return the content of a file from its beginning, at most so many bytes."""
    blocks, left = list[bytes](), limit_bytes
    while left > 0 and (block := os.read(fd, min(left, SMALL_BLOCK_BYTES))):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)


def is_open_for_writing(path: Path) -> bool | None:
    """Whether a process has the file open for writing; None where the kernel can't say."""
    try:
        fd = open_regular(path)
    except OSError:
        return None
    try:
        return is_written_to(fd)
    finally:
        os.close(fd)


def is_written_to(fd: int) -> bool | None:
    """Like `is_open_for_writing`, of a file that is open here for reading."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def read_limited(path: Path, limit_bytes: int) -> bytes | None:
    """Return at most `limit_bytes` + 1 bytes, to show what is too long; None on an error."""
    try:
        return read_regular(path, limit_bytes)
    except OSError:
        return None


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """Return at most `limit_bytes` + 1 bytes of a regular file. Raises OSError."""
    with open_fd(open_regular(path)) as fd:
        return read_bytes(fd, limit_bytes + 1)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of the content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# changes that survive a crash ----------------------------------------------------------------------------------------


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a new file; at a clean exit it replaces `path`, else it is removed.

    Its folder may be one that other users write to: the file has a name that can't be known before, and no part of
    the path is followed as a link. With `durable` the file and its name survive a power cut.
    """
    with hold_folder(path.parent) as folder:
        temp, renamed = make_temp_name(path.name), False
        fd = os.open(temp, NEW_FILE, 0o666, dir_fd=folder)
        try:
            with os.fdopen(fd, "wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(fd)
            os.replace(temp, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            renamed = True
        finally:
            if not renamed:
                with suppress(FileNotFoundError):
                    os.unlink(temp, dir_fd=folder)
        if durable:
            os.fsync(folder)


def make_temp_name(name: str) -> str:
    """Return a new hidden name for a file that becomes `name`, shorter than the 255 bytes of a file name."""
    return f".{name[:40]}.{token_hex(16)}.tmp"


def atomic_write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file that no reader sees half-written."""
    with atomic_write(path, durable=durable) as file:
        file.write(data)


def atomic_create(path: Path, data: bytes) -> bool:
    """Write a file that no reader sees half-written, unless there is one of its name; return whether it was.

    Where the file system has no links, two processes may both do so at the same moment, and one file is lost.
    """
    if os.path.lexists(path):
        return False
    with hold_folder(path.parent) as folder:
        temp = make_temp_name(path.name)
        try:
            with os.fdopen(os.open(temp, NEW_FILE, 0o666, dir_fd=folder), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temp, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                return False
            except OSError:
                os.replace(temp, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temp, dir_fd=folder)
        os.fsync(folder)
    return True


def atomic_copy(source: Path, target: Path, *, durable: bool = True) -> None:
    """Copy the content of a file; no reader sees the copy half-written."""
    with source.open("rb") as original, atomic_write(target, durable=durable) as copy:
        shutil.copyfileobj(original, copy, BLOCK_BYTES)


def overwrite(path: Path, data: bytes) -> None:
    """Write a small file in place: readers see the old bytes, the new ones, or a mixture; nothing is flushed.

    Raises OSError, also for a link or a pipe.
    """
    with _open_in_place(path) as fd:
        _write_in_place(fd, data)


def swap_bytes(path: Path, expected: bytes, data: bytes, limit_bytes: int) -> bool:
    """Write a small file in place as `overwrite` does, if its content is `expected`; b"" means that there is none.

    Of a file longer than `limit_bytes` so many and one more count, as `read_regular` returns them.
    Return whether it was. Two processes can't both do so where the file system has locks.
    """
    with _open_in_place(path) as fd:
        with suppress(OSError):
            if not try_lock(fd):
                return False
        is_expected = read_bytes(fd, limit_bytes + 1) == expected
        if is_expected:
            _write_in_place(fd, data)
    return is_expected


@contextmanager
def _open_in_place(path: Path) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with hold_folder(path.parent) as folder:
        fd = os.open(path.name, flags, 0o600, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def _write_in_place(fd: int, data: bytes) -> None:
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))


def create_empty(path: Path) -> None:
    """Make an empty file, if there is none of that name. Raises OSError for a link or a pipe."""
    with hold_folder(path.parent) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(path.name, flags, 0o666, dir_fd=folder))


def discard(path: Path) -> None:
    """Delete a folder and all below it, or a file, link or pipe; what can't be deleted is left."""
    with suppress(OSError):
        remove(path)


def discard_later(folder: Path) -> None:
    """Take a folder away at once, and delete it on a thread: a disk may take longer for that than to make it.

    It has another name then, beside the old one, which is left where the process ends before the thread has.
    """
    doomed = folder.with_name(f".{token_hex(16)}.gone")
    try:
        move(folder, doomed)
    except FileNotFoundError:
        return
    except OSError:
        doomed = folder
    if not _deletions.acquire(blocking=False):
        discard(doomed)
        return
    try:
        _deleting_thread().submit(_discard_waiting, doomed)
    except RuntimeError:  # the limit of threads
        _discard_waiting(doomed)


def _discard_waiting(folder: Path) -> None:
    try:
        discard(folder)
    finally:
        _deletions.release()


def move_into(source: Path, folder: Path, name: str) -> Path:
    """Rename `source` to `folder/name`, or `name-2`, `name-3` ... where that exists.

    Return the path.
    """
    make_folders([folder])
    stem, suffix = (name, "") if source.is_dir() else (Path(name).stem, Path(name).suffix)
    for n in range(1, 100_000):
        target = folder / (f"{stem}{suffix}" if n == 1 else f"{stem}-{n}{suffix}")
        if not os.path.lexists(target):
            move(source, target)
            sync(folder)
            return target
    raise FileExistsError(f"{folder} holds too many entries named {name}")


def make_safe_name(name: str) -> str:
    """Return a folder name that Linux, macOS and Windows accept, still readable as `name`."""
    clean = "".join("_" if c in '<>:"/\\|?*' or not c.isprintable() else c for c in unicodedata.normalize("NFC", name))
    while len(clean.encode("utf-8", "replace")) > LONGEST_NAME_BYTES:
        clean = clean[:-1]
    clean = clean.encode("utf-8", "replace").decode().rstrip(". ").lstrip()
    if clean.startswith((".", "-")):
        clean = "_" + clean[1:]
    if clean.split(".")[0].upper() in RESERVED:
        clean = "_" + clean
    return clean or "job"


def list_numbered(name: str) -> Iterator[str]:
    """Yield `name`, `name-2`, `name-3` and so on: of these the first one that is free is taken."""
    return (name if n == 1 else f"{name}-{n}" for n in range(1, 1_000_000))


# several at once -----------------------------------------------------------------------------------------------------


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file, or return False if another process holds its lock.

    Closing the file releases it.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def catch(act: Callable[P, object], *args: P.args, **keys: P.kwargs) -> OSError | None:
    """Call `act`; return the OSError that it raises, to go on with other files."""
    try:
        act(*args, **keys)
    except OSError as error:
        return error
    return None


def map_parallel(act: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Call `act` for each item on a few threads: a disk flushes several files at the price of one.

    The first error is raised when all calls have ended. Where no thread can be started the calls are made here.
    """
    if len(items) < 2:
        return [act(item) for item in items]
    left, done, kept = deque(enumerate(items)), dict[int, R](), get_kept()
    errors, ended = list[OSError](), Semaphore(0)

    def act_on_next() -> None:
        try:
            place, item = left.popleft()
        except IndexError:  # a submission that failed is in the queue all the same, and may find no item
            return
        try:
            with share_kept(kept):
                done[place] = act(item)
        except OSError as error:
            errors.append(error)
        finally:
            ended.release()

    futures = []
    try:
        for _ in items:
            futures.append(_thread_pool().submit(act_on_next))
    except RuntimeError:  # the limit of threads
        while left:
            act_on_next()
    for _ in items:
        ended.acquire()
    for future in futures:
        future.result()
    if errors:
        raise errors[0]
    return [done[place] for place in range(len(items))]


@cache
def _thread_pool() -> ThreadPoolExecutor:
    """One pool for all calls: starting threads costs more than a few flushes."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="files")


@cache
def _deleting_thread() -> ThreadPoolExecutor:
    """One thread: several would wait for each other more than for the disk."""
    return ThreadPoolExecutor(1, thread_name_prefix="deletes")
