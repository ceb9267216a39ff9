"""The avatar cache: prepared avatars and clips by content, each complete or absent, shared by all workers.

Each entry has a lock, which the kernel releases however its process ends: exclusive while the
entry is built or removed, shared while it is used. A folder whose manifest does not match is no
entry: it is built again.
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

from models.atomic import atomic_folder, hash_file, lock, make_temp_path
from models.types import AVATAR_INDEX

MANIFEST = "manifest.json"
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_LEFTOVER = re.compile(r"\.(?P<key>.+)\.[0-9a-f]{12,32}\.tmp")
_POLL_S = 0.02
MAX_REBUILDS = 2
"""How often a damaged entry is built again before the job fails."""


def make_key(*parts: object) -> str:
    """Return one key for everything that an entry depends on; the parts are JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class AvatarCache:
    """Folders by key below `root`, together at most about `max_bytes`; the least recently used is
    removed first.

    An entry that this object has returned stays until it is released, or this object or its
    process ends.
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
        """Release all entries."""
        _unlock_all(self._used)

    def release(self, key: str) -> None:
        """Unlock an entry, so that it may be removed when space is needed."""
        if key in self._used:
            os.close(self._used.pop(key))

    def get_or_build(self, key: str, build: Callable[[Path], None], on_wait: Callable[[], None] = lambda: None) -> Path:
        """Return the folder of `key`, made by `build(empty folder)` if it is missing or
        incomplete.

        Of several processes that want the same key, one builds and the others wait for it, calling
        `on_wait` often; an error of `on_wait` ends the wait. An error of `build` passes and leaves
        no files. Raises ValueError for a key that is no plain file name, EngineError disk_full.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} can't name an entry of the cache")
        self.release(key)
        while not self._take_shared(key, on_wait):
            with self._hold_lock(key, on_wait):
                self._build(key, build)
            self._evict(key)
        folder = self.root / key
        os.utime(folder)
        return folder

    def note_avatar(self, avatar_sha256: str, key: str) -> None:
        """Note of which avatar an entry was made, so that other machines are given it before they prepare that."""
        note = self.root / AVATAR_INDEX / avatar_sha256 / key
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()

    def make_room(self) -> None:
        """Remove entries that no other process uses until all fit, those that were used longest ago first."""
        self._evict("")

    def invalidate(self, key: str) -> None:
        """Mark an entry as damaged, so that the next `get_or_build` builds it again."""
        (self.root / key / MANIFEST).unlink(missing_ok=True)

    @property
    def total_bytes(self) -> int:
        """Size of all entries."""
        return sum(sum_bytes(folder) for folder in self._list_entries())

    def find_damaged(self) -> list[str]:
        """Return keys of entries whose files differ from the manifest. Reads all files."""
        return [folder.name for folder in self._list_entries() if read_manifest(folder) != hash_files(folder)]

    def _take_shared(self, key: str, on_wait: Callable[[], None]) -> bool:
        """Take a shared lock and keep it, if the entry is complete."""
        handle = self._acquire_lock(key, on_wait, shared=True)
        if is_complete(self.root / key):
            self._used[key] = handle
            return True
        os.close(handle)
        return False

    def _build(self, key: str, build: Callable[[Path], None]) -> None:
        folder = self.root / key
        if is_complete(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        self._remove_leftovers(key)
        with atomic_folder(folder) as temp_folder:
            build(temp_folder)
            (temp_folder / MANIFEST).write_text(json.dumps(hash_files(temp_folder)))

    def _list_entries(self) -> list[Path]:
        return [path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")]

    def _evict(self, keep: str) -> None:
        """Remove leftovers of killed builders, then the least recently used unused entries."""
        for key in {match["key"] for path in self.root.iterdir() if (match := _LEFTOVER.fullmatch(path.name))}:
            with self._try_hold_lock(key) as mine:
                if mine:
                    self._remove_leftovers(key)
        for note in self.root.glob(f"{AVATAR_INDEX}/*/*"):
            if not (self.root / note.name).exists():
                note.unlink(missing_ok=True)
        excess = self.total_bytes - self.max_bytes
        for folder in sorted(self._list_entries(), key=read_last_used):
            if excess <= 0:
                return
            if folder.name == keep:
                continue
            with self._try_hold_lock(folder.name) as mine:
                if mine:
                    excess -= sum_bytes(folder)
                    self._remove_entry(folder)

    def _remove_entry(self, folder: Path) -> None:
        """Remove an entry, whose lock is held, by one rename, so that a kill leaves no half."""
        doomed = make_temp_path(folder)
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        self._make_lock_path(folder.name).unlink(missing_ok=True)

    def _remove_leftovers(self, key: str) -> None:
        """Remove temporary folders of killed builders. The caller holds the lock of `key`."""
        for path in self.root.iterdir():
            match = _LEFTOVER.fullmatch(path.name)
            if match and match["key"] == key:
                shutil.rmtree(path, ignore_errors=True)

    def _make_lock_path(self, key: str) -> Path:
        return self.root / f".{key}.lock"

    @contextmanager
    def _hold_lock(self, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
        handle = self._acquire_lock(key, on_wait)
        try:
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _try_hold_lock(self, key: str) -> Iterator[bool]:
        """Hold the exclusive lock; yield False where another process holds it."""
        handle = self._try_acquire_lock(key)
        try:
            yield handle is not None
        finally:
            if handle is not None:
                os.close(handle)

    def _acquire_lock(self, key: str, on_wait: Callable[[], None], *, shared: bool = False) -> int:
        while (handle := self._try_acquire_lock(key, shared=shared)) is None:
            on_wait()
            time.sleep(_POLL_S)
        return handle

    def _try_acquire_lock(self, key: str, *, shared: bool = False) -> int | None:
        path = self._make_lock_path(key)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if lock(handle, shared=shared) and os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        except FileNotFoundError:  # removed with its entry after it was opened
            pass
        os.close(handle)
        return None


def fetch_entry(
    cache: AvatarCache, key: str, build: Callable[[Path], None], target: Path, waiting: Callable[[], None]
) -> bool:
    """Put a cache entry into the folder `target`; return False if it had to be built.

    `target` must not exist.

    key       content key of the entry
    build     fills the folder of a new entry
    waiting   called again and again while another process builds the entry

    The files are hard links, so the job keeps them when the cache drops the entry. An entry whose
    hashes don't fit its manifest is built again. Raises what `build` raises, EngineError
    disk_full, and OSError if each build is damaged.
    """
    built = False

    def build_and_note(folder: Path) -> None:
        nonlocal built
        built = True
        build(folder)

    for attempt in range(MAX_REBUILDS + 1):
        entry = cache.get_or_build(key, build_and_note, waiting)
        if read_manifest(entry) == hash_files(entry):
            break
        cache.invalidate(key)
        if attempt == MAX_REBUILDS:
            raise OSError(f"the entry {key[:12]} of the cache is damaged each time it is read: is the disk all right?")
    with atomic_folder(target) as temporary:
        for path in sorted(entry.iterdir()):
            link_or_copy(path, temporary / path.name)
    cache.release(key)
    return not built


def link_or_copy(source: Path, target: Path) -> None:
    """Give the file a second name; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def is_complete(folder: Path) -> bool:
    """Whether the folder has every file of the manifest in its size, and no other."""
    listed = read_manifest(folder)
    return listed is not None and {name: size for name, (size, _) in listed.items()} == list_sizes(folder)


def read_manifest(folder: Path) -> dict[str, tuple[int, str]] | None:
    """Return size and SHA-256 of each file as it was written; None without a readable manifest."""
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())
        return {str(name): (int(size), str(digest)) for name, (size, digest) in listed.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def hash_files(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of each file as it is now."""
    return {name: (size, hash_file(folder / name)) for name, size in list_sizes(folder).items()}


def list_sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def sum_bytes(folder: Path) -> int:
    return sum(list_sizes(folder).values())


def read_last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _unlock_all(used: dict[str, int]) -> None:
    while used:
        os.close(used.popitem()[1])
