"""Facts about the file system below a path, and the three ways we touch it: fsync, rename, safe names."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

T = TypeVar("T")
R = TypeVar("R")

REMOTE = {"cifs", "smb3", "smbfs", "nfs", "nfs4", "9p", "virtiofs", "vboxsf", "ceph", "glusterfs", "afs"}
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
LONGEST_NAME_BYTES = 100
AT_ONCE = 8


def is_file(path: Path) -> bool:
    """Unlike Path.is_file it answers, too, where a mount is dead or a name can't be: there is no such file then."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def filesystem_kind(path: Path) -> str:
    """The kind as the kernel names it ("ext4", "cifs", "fuse.sshfs"); "unknown" where /proc doesn't say."""
    best, kind = -1, "unknown"
    target = str(path.resolve())
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


def tells_of_changes(kind: str) -> bool:
    """Whether inotify sees what other machines write there. FUSE and network mounts stay silent."""
    return kind not in REMOTE and not kind.startswith("fuse")


def sync(path: Path) -> None:
    """Make the bytes of a file, or the renames in a folder, survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def at_once(act: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Do the same to many files, some at a time: a disk flushes several at the price of one.

    The first error is raised when all have ended.
    """
    if len(things) < 2:
        return [act(thing) for thing in things]
    under_way = [threads().submit(act, thing) for thing in things]
    wait(under_way)
    return [one.result() for one in under_way]


@cache
def threads() -> ThreadPoolExecutor:
    """They stay: to start some for every few files costs more than the flushes save."""
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="files")


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file that is never seen half-written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    beside.replace(path)
    if durable:
        sync(path.parent)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file that is never seen half-copied and survives a power cut."""
    beside = target.with_name(f".{uuid4().hex[:12]}.tmp")
    try:
        with source.open("rb") as data, beside.open("xb") as copy:
            shutil.copyfileobj(data, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    sync(target.parent)


def safe_name(name: str) -> str:
    """A folder name that Linux, macOS and Windows can all hold, still readable as `name`."""
    clean = "".join("_" if c in '<>:"/\\|?*' or not c.isprintable() else c for c in unicodedata.normalize("NFC", name))
    while len(clean.encode("utf-8", "replace")) > LONGEST_NAME_BYTES:
        clean = clean[:-1]
    clean = clean.encode("utf-8", "replace").decode().rstrip(". ").lstrip()
    if clean.startswith((".", "-")):
        clean = "_" + clean[1:]
    if clean.split(".")[0].upper() in RESERVED:
        clean = "_" + clean
    return clean or "job"


def move_in(source: Path, folder: Path, name: str) -> Path:
    """Rename `source` to `folder/name`, or `name-2`, `name-3` ... where that is taken; returns where it went.

    A folder never replaces one that has something in it; a file is linked first, so that nothing is ever replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem, suffix = (name, "") if source.is_dir() else (Path(name).stem, Path(name).suffix)
    for n in range(1, 100_000):
        target = folder / (f"{stem}{suffix}" if n == 1 else f"{stem}-{n}{suffix}")
        if not os.path.lexists(target):
            source.rename(target)
            sync(folder)
            return target
    raise FileExistsError(f"{folder} holds too many folders named {name}")
