"""Files between the daemon and nodes, by content: their description, pieces of them, and where pieces are put together.

A description has an entry for each file and folder, by its path below the one that is described, which is "": of a file
its SHA-256 and size, of a folder nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

from gpu_pool.cluster.nofollow import list_names, open_file
from gpu_pool.wire import WireError

PIECE_BYTES, FLUSH_BYTES = 1 << 20, 8 << 20
MAX_ENTRIES, MAX_NAME_CHARS, MAX_FILE_BYTES = 50_000, 1024, 64 << 30
MAX_KNOWN, FILES_A_STEP = 4 * MAX_ENTRIES, 256
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
HASH = re.compile(r"[0-9a-f]{64}")

Entries = Mapping[str, Any]


def is_name(name: str) -> bool:
    """Whether this is a path below a folder, and leads nowhere else."""
    parts = name.split("/")
    return 0 < len(name) <= MAX_NAME_CHARS and "\0" not in name and not {"", ".", ".."}.intersection(parts)


def check_entries(entries: Entries) -> None:
    """Raise WireError if this describes no file and no folder."""
    if not 0 < len(entries) <= MAX_ENTRIES or "" not in entries:
        raise WireError("no description of files")
    for name, entry in entries.items():
        if name and (not is_name(name) or entries.get(name.rpartition("/")[0]) != []):
            raise WireError(f"{name[:80]!r} is no path below a folder")
        if entry != [] and not is_file_entry(entry):
            raise WireError(f"{str(entry)[:80]} is no hash and no size")


def is_file_entry(entry: object) -> bool:
    match entry:
        case [str() as digest, int() as size]:
            return HASH.fullmatch(digest) is not None and 0 <= size <= MAX_FILE_BYTES
    return False


def list_files(path: Path) -> Iterator[tuple[str, Path, bool]]:
    """Yield what is described of a file or folder, itself first, and whether it is a folder.

    Links, other things and what is only being written are left out.
    Raises FileNotFoundError if something is removed meanwhile: half of a folder would look like a whole one.
    """
    if os.path.lexists(path):
        yield from _list_present(path)


def _list_present(path: Path) -> Iterator[tuple[str, Path, bool]]:
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        yield "", path, stat.S_ISDIR(mode)
    if stat.S_ISDIR(mode):
        for inner in map(path.joinpath, list_names(path)):
            if inner.name.startswith(".") and inner.suffix == ".tmp":
                continue
            for name, file, is_folder in _list_present(inner):
                yield f"{inner.name}/{name}" if name else inner.name, file, is_folder


class ContentHashes:
    """Hashes of files, remembered for as long as inode, size and time of a file stay the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], str] = {}

    def describe(self, path: Path) -> Generator[None, None, dict[str, list[Any]]]:
        """Return the description of a file or folder; yield after each piece that was read, and some files.

        Raises OSError.
        """
        entries = {}
        for name, file, is_folder in list_files(path):
            entries[name] = [] if is_folder else (yield from self._describe_file(file))
            if len(entries) % FILES_A_STEP == 0:
                yield
        return entries

    def _describe_file(self, path: Path) -> Generator[None, None, list[Any]]:
        with os.fdopen(open_file(path), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            key = (status.st_ino, status.st_size, status.st_mtime_ns)
            if key not in self._known:
                digest = hashlib.sha256()
                while block := file.read(PIECE_BYTES):
                    digest.update(block)
                    yield
                self._known[key] = digest.hexdigest()
            found = self._known[key]
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        return [found, status.st_size]


class FileChanged(OSError):
    """It is not any more what it was described as."""


def read_described(path: Path, entry: Sequence[Any]) -> Iterator[bytes]:
    """Yield the content of a file, as much at once as a piece has.

    Raises OSError; FileChanged before the last piece where the content isn't that of its description: who gets it
    would take the sender for a liar.
    """
    digest, left_bytes = hashlib.sha256(), entry[1]
    with os.fdopen(open_file(path), "rb", buffering=0) as file:
        while block := file.read(PIECE_BYTES):
            digest.update(block)
            left_bytes -= len(block)
            if left_bytes < 0 or (not left_bytes and digest.hexdigest() != entry[0]):
                raise FileChanged(f"{path.name} was changed after its hash was told")
            yield block
    if left_bytes:
        raise FileChanged(f"{path.name} was shortened after its hash was told")


class Receipt:
    """A file or folder whose pieces arrive in the order of their names; it appears by rename once all are there.

    Raises WireError for a description, or content, that isn't right, and OSError, as where the disk is full.
    """

    def __init__(self, target: Path, entries: Entries) -> None:
        check_entries(entries)
        self.target = target
        self._temp = target.with_name(f".{target.name[:40]}.{token_hex(16)}.tmp")
        self._left = deque((name, *entry) for name, entry in sorted(entries.items()) if entry)
        self._file: BinaryIO | None = None
        self._unflushed_bytes = 0
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            for name in sorted(name for name, entry in entries.items() if not entry):
                (self._temp / name).mkdir()
            self._open_next()
        except (OSError, WireError):
            self.discard()
            raise

    @property
    def is_whole(self) -> bool:
        return self._file is None

    def _open_next(self) -> None:
        """Open the next file that has content; those that have none are made in passing."""
        while self._left:
            self._digest, self._missing = hashlib.sha256(), self._left[0][2]
            self._file = os.fdopen(os.open(self._temp / self._left[0][0], NEW_FILE, 0o644), "wb", buffering=0)
            if self._missing:
                return
            self._end_file()

    def add(self, data: bytes) -> None:
        """Write the next piece, and flush now and then: one flush of all would take too long."""
        if self._file is None or len(data) > self._missing:
            raise WireError("more of a file than was told")
        self._digest.update(data)
        self._missing -= len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._unflushed_bytes += len(data)
        if self._unflushed_bytes >= FLUSH_BYTES or not self._missing:
            os.fdatasync(self._file.fileno())
            self._unflushed_bytes = 0
        if not self._missing:
            self._end_file()
            self._open_next()

    def _end_file(self) -> None:
        name, expected, _ = self._left.popleft()
        if self._file:
            self._file.close()
        self._file = None
        if self._digest.hexdigest() != expected:
            raise WireError(f"{name or self.target.name} has another content than its hash says")

    def install(self, *, is_locked: bool = False) -> None:
        """Let it appear. A folder that is there already stays: it is the same.

        `is_locked`: it is an entry of a cache, each of which has a lock that those who make it hold.
        """
        if self._temp.is_dir():
            install_folder(self._temp, self.target, is_locked=is_locked)
            shutil.rmtree(self._temp, ignore_errors=True)
        else:
            self._temp.replace(self.target)

    def discard(self) -> None:
        if self._file:
            self._file.close()
        shutil.rmtree(self._temp, ignore_errors=True)
        with suppress(OSError):
            self._temp.unlink()


def install_folder(folder: Path, target: Path, *, is_locked: bool) -> None:
    """Rename a folder to `target`, unless that is there, or another process makes it."""
    if not is_locked:
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        return
    lock = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not target.exists():
                folder.rename(target)
    finally:
        os.close(lock)
