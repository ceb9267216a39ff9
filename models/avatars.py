"""The avatar cache: what was prepared of an avatar, by content, whole or not at all, shared by all workers.

Each entry has a lock that the kernel frees however its holder ends: exclusive while the entry is built or removed,
shared while it is used. A folder without a manifest that fits is no entry: it is built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from models.atomic import atomic_folder, hash_file, lock

MANIFEST = "manifest.json"
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_LEFTOVER = re.compile(r"\.(?P<key>.+)\.[0-9a-f]{12}\.tmp")
_POLL_S = 0.02


def make_key(*parts: object) -> str:
    """One name for everything that an entry depends on; the parts are JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class AvatarCache:
    """Folders by key below `root`, together at most about `max_bytes`; the least recently used goes first.

    An entry that this object has handed out stays until it is released, or this object or its process ends.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root, self.max_bytes = root, max_bytes
        self._used: dict[str, int] = {}
        self._finalizer = weakref.finalize(self, _unlock_all, self._used)
        root.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        _unlock_all(self._used)

    def release(self, key: str) -> None:
        """The entry is no longer used here: it may be removed when room is needed."""
        if key in self._used:
            os.close(self._used.pop(key))

    def get_or_build(self, key: str, build: Callable[[Path], None], waiting: Callable[[], None] = lambda: None) -> Path:
        """The folder of `key`, made by `build(empty folder)` if it isn't there whole.

        Of several processes that want the same key, one builds and the others wait for it, calling `waiting` often;
        what that raises ends the wait. What `build` raises passes through and leaves nothing behind. Raises ValueError
        for a key that is no plain file name, EngineError disk_full.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} can't name an entry of the cache")
        self.release(key)
        while not self._use(key, waiting):
            with self._locked(key, waiting):
                self._build(key, build)
            self._trim(key)
        folder = self.root / key
        os.utime(folder)
        return folder

    def invalidate(self, key: str) -> None:
        """What lies there is not what was written: from now on it is no entry, so the next who asks builds it."""
        (self.root / key / MANIFEST).unlink(missing_ok=True)

    @property
    def total_bytes(self) -> int:
        """Size of all entries."""
        return sum(entry_bytes(folder) for folder in self._entries())

    def find_damaged(self) -> list[str]:
        """Keys of entries whose files are not what was written, by their SHA-256: slow, for a check-up."""
        return [folder.name for folder in self._entries() if read_manifest(folder) != hash_files(folder)]

    def _use(self, key: str, waiting: Callable[[], None]) -> bool:
        """Take a shared lock that stays, if the entry is there whole."""
        handle = self._lock(key, waiting, shared=True)
        if whole(self.root / key):
            self._used[key] = handle
            return True
        os.close(handle)
        return False

    def _build(self, key: str, build: Callable[[Path], None]) -> None:
        folder = self.root / key
        if whole(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        self._sweep(key)
        with atomic_folder(folder) as beside:
            build(beside)
            (beside / MANIFEST).write_text(json.dumps(hash_files(beside)))

    def _entries(self) -> list[Path]:
        return [path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")]

    def _trim(self, keep: str) -> None:
        """Remove what builders left that were killed, then the entries used longest ago, but none that is in use."""
        for key in {match["key"] for path in self.root.iterdir() if (match := _LEFTOVER.fullmatch(path.name))}:
            with self._locked_now(key) as mine:
                if mine:
                    self._sweep(key)
        excess = self.total_bytes - self.max_bytes
        for folder in sorted(self._entries(), key=last_used):
            if excess <= 0:
                return
            if folder.name == keep:
                continue
            with self._locked_now(folder.name) as mine:
                if mine:
                    excess -= entry_bytes(folder)
                    self._remove(folder)

    def _remove(self, folder: Path) -> None:
        """Under its lock; one rename takes it away, so that a kill in the middle leaves no half of an entry."""
        doomed = folder.with_name(f".{folder.name}.{'0' * 12}.tmp")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        self._lock_path(folder.name).unlink(missing_ok=True)

    def _sweep(self, key: str) -> None:
        """Under the lock of `key` nobody else builds it: what lies beside it was left by a builder that was killed."""
        for path in self.root.iterdir():
            match = _LEFTOVER.fullmatch(path.name)
            if match and match["key"] == key:
                shutil.rmtree(path, ignore_errors=True)

    def _lock_path(self, key: str) -> Path:
        return self.root / f".{key}.lock"

    @contextmanager
    def _locked(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        handle = self._lock(key, waiting)
        try:
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _locked_now(self, key: str) -> Iterator[bool]:
        """Hold the exclusive lock; False where somebody else holds it."""
        handle = self._try_lock(key)
        try:
            yield handle is not None
        finally:
            if handle is not None:
                os.close(handle)

    def _lock(self, key: str, waiting: Callable[[], None], *, shared: bool = False) -> int:
        while (handle := self._try_lock(key, shared=shared)) is None:
            waiting()
            time.sleep(_POLL_S)
        return handle

    def _try_lock(self, key: str, *, shared: bool = False) -> int | None:
        path = self._lock_path(key)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if lock(handle, shared=shared) and os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        except FileNotFoundError:  # removed with its entry since it was opened
            pass
        os.close(handle)
        return None


def whole(folder: Path) -> bool:
    """Whether every file of the manifest is there in its size, and no other."""
    listed = read_manifest(folder)
    return listed is not None and {name: size for name, (size, _) in listed.items()} == sizes(folder)


def read_manifest(folder: Path) -> dict[str, tuple[int, str]] | None:
    """Size and SHA-256 of each file as it was written; None without a manifest that can be read."""
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())
        return {str(name): (int(size), str(digest)) for name, (size, digest) in listed.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def hash_files(folder: Path) -> dict[str, tuple[int, str]]:
    return {name: (size, hash_file(folder / name)) for name, size in sizes(folder).items()}


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


def _unlock_all(used: dict[str, int]) -> None:
    while used:
        os.close(used.popitem()[1])
