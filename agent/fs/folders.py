"""Folders by descriptor: no part of a path is followed as a link, and the known ones are those of the start.

Users of the share may replace any of its folders by a link or by another folder. Everything is made, moved and
deleted relative to a folder that was opened here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from threading import Lock, local

from models.nofollow import open_folder

Identity = tuple[int, int | None]
"""Device and inode of a folder; None where the file system has no inodes that last."""

_known: dict[Path, list[Identity]] = {}
"""The folders that must stay what they are; one table, so that no function of this package can pass them by."""
_roots: dict[str, Path] = {}
"""The same folders by their text, which is found sooner: a turn looks hundreds of times."""


class KeptFolders:
    """Descriptors of known folders, each opened and checked once while a turn of the daemon lasts."""

    def __init__(self) -> None:
        self._fds: dict[Path, int] = {}
        self._opened: list[int] = []
        self._lock = Lock()

    def open(self, path: Path) -> int:
        """Return the descriptor of a known folder, which stays open until `close_all`. Raises OSError."""
        with self._lock:
            if path not in self._fds:
                self._fds[path] = _open_known(path)
                self._opened.append(self._fds[path])
            return self._fds[path]

    def forget(self, path: Path) -> None:
        """Open this folder anew the next time; other threads may still use the old descriptor."""
        with self._lock:
            self._fds.pop(path, None)

    def close_all(self) -> None:
        for fd in self._opened:
            os.close(fd)


class Turn(local):
    """The folders that this thread keeps open: None outside of a turn, as in the threads of other parts."""

    kept: KeptFolders | None = None


_turn = Turn()


class ReplacedFolder(OSError):
    """A folder is not the one that it was when the daemon met the share."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ESTALE, "it was replaced by another folder since the daemon met the share", str(path))


# known folders -------------------------------------------------------------------------------------------------------


def remember_folders(folders: Iterable[Path], *, has_inodes: bool = True) -> None:
    """Let these folders be used, from now on, only as long as they are the ones of this moment. Raises OSError.

    `has_inodes`: False where their file system may give a folder another inode at any time.
    """
    found: dict[Path, list[Identity]] = {}
    for folder in folders:
        with _hold(open_folder(folder)) as fd:
            status = os.fstat(fd)
        found[folder] = [(status.st_dev, status.st_ino if has_inodes else None)]
    for folder in found:
        _forget_kept(folder)
    _known.update(found)
    _roots.update((os.fspath(folder), folder) for folder in found)


def forget_folders(folders: Iterable[Path]) -> None:
    """Take these folders as they are, until they are remembered again."""
    for folder in folders:
        _forget_kept(folder)
        _known.pop(folder, None)
        _roots.pop(os.fspath(folder), None)


def is_replaced(folder: Path) -> bool:
    """Whether a known folder is another one now, or a link. One that is gone is not replaced."""
    try:
        with hold_folder(folder):
            return False
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno in (errno.ESTALE, errno.ELOOP, errno.ENOTDIR)


class hold_folder:  # noqa: N801 - used as a function; a generator costs three times as much
    """Enter to get the descriptor of a folder.

    Raises OSError where a part of the path is a link, ReplacedFolder where a known folder of the path is another one.
    """

    __slots__ = ("_opened", "_path")

    def __init__(self, path: Path) -> None:
        self._path, self._opened = path, list[int]()

    def __enter__(self) -> int:
        root = _find_root(os.fspath(self._path))
        if root is None:
            return self._keep(open_folder(self._path))
        kept = _turn.kept
        fd = kept.open(root) if kept is not None else self._keep(_open_known(root))
        rest = os.fspath(self._path)[len(os.fspath(root)) + 1 :]
        if not rest:
            return fd
        try:
            return self._keep(open_folder(rest, folder=fd))
        except (OSError, ValueError):
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for fd in self._opened:
            os.close(fd)
        self._opened = []

    def _keep(self, fd: int) -> int:
        self._opened.append(fd)
        return fd


def _find_root(path: str) -> Path | None:
    """Return the innermost known folder that is the path or above it."""
    while path:
        if (root := _roots.get(path)) is not None:
            return root
        path = path.rpartition("/")[0]
    return _roots.get("/")


@contextmanager
def keep_folders_open() -> Iterator[None]:
    """Within the block, open and check each known folder once, for this thread and those that work for it.

    What replaces a folder meanwhile is never written to: the descriptor is that of the folder that was checked.
    """
    before, _turn.kept = _turn.kept, KeptFolders()
    try:
        yield
    finally:
        _turn.kept.close_all()
        _turn.kept = before


def get_kept() -> KeptFolders | None:
    return _turn.kept


@contextmanager
def share_kept(kept: KeptFolders | None) -> Iterator[None]:
    """Use the folders that another thread keeps open, which waits for this one."""
    before, _turn.kept = _turn.kept, kept
    try:
        yield
    finally:
        _turn.kept = before


def _open_known(root: Path) -> int:
    fd = open_folder(root)
    try:
        _check_identity(root, os.fstat(fd))
    except OSError:
        os.close(fd)
        raise
    return fd


def _forget_kept(folder: Path) -> None:
    if _turn.kept is not None:
        _turn.kept.forget(folder)


def _check_identity(folder: Path, status: os.stat_result) -> None:
    if not any(status.st_dev == device and inode in (None, status.st_ino) for device, inode in _known[folder]):
        raise ReplacedFolder(folder)


@contextmanager
def _hold(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


# changes -------------------------------------------------------------------------------------------------------------


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder in one that exists, if it is missing; a known one that was gone is known again.

    Raises OSError where something else has its name.
    """
    with hold_folder(path.parent) as parent:
        try:
            os.mkdir(path.name, mode, dir_fd=parent)
        except FileExistsError:
            if not _is_folder(parent, path.name):
                raise NotADirectoryError(errno.ENOTDIR, f"{path} is a link or a file", str(path)) from None
            return
        _forget_kept(path)
        if path in _known:
            with _hold(open_folder(path.name, folder=parent)) as fd:
                status = os.fstat(fd)
            if status.st_uid == os.geteuid():  # else it was replaced at once
                _known[path].append((status.st_dev, status.st_ino))


def make_folders(folders: Iterable[Path], mode: int = 0o777) -> None:
    """Make the folders that are missing, with their parents, all of this mode."""
    for folder in folders:
        try:
            make_folder(folder, mode)
        except FileNotFoundError:
            missing = [part for part in folder.parents if not os.path.lexists(part)]
            for part in (*reversed(missing), folder):
                make_folder(part, mode)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder, whatever it is; a file of that name is replaced."""
    with hold_folder(source.parent) as before, hold_folder(target.parent) as after:
        os.rename(source.name, target.name, src_dir_fd=before, dst_dir_fd=after)


def unlink(path: Path) -> None:
    """Remove a file, link or pipe. Raises OSError."""
    with hold_folder(path.parent) as folder:
        os.unlink(path.name, dir_fd=folder)


def remove(path: Path) -> None:
    """Delete a file, or a folder and all below it, where it is. Raises the first error; the rest is deleted."""
    with hold_folder(path.parent) as folder:
        remove_tree(folder, path.name)


def remove_tree(folder: int, name: str) -> None:
    """Delete an entry of a folder of ours, and all below it; no link is followed and no mount point crossed.

    Folders below are moved up beside `name` before they are emptied, so that a deep tree needs neither memory nor
    descriptors. What can't be deleted is left. Raises the first OSError.
    """
    if _remove_plain(folder, name):
        return
    pending, errors = [name], list[OSError]()
    while pending:
        entry = pending.pop()
        try:
            pending += _empty(folder, entry, errors)
            os.rmdir(entry, dir_fd=folder)
        except OSError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _empty(parent: int, name: str, errors: list[OSError]) -> list[str]:
    """Delete the files of a folder; return the names that its folders have now, in `parent`."""
    moved: list[str] = []
    with _hold(open_folder(name, folder=parent, same_mount=True)) as fd:
        for entry in os.listdir(fd):  # noqa: PTH208 - by descriptor
            above = f".{token_hex(16)}.gone"
            try:
                if not _remove_plain(fd, entry):
                    os.rename(entry, above, src_dir_fd=fd, dst_dir_fd=parent)
                    moved.append(above)
            except OSError as error:
                errors.append(error)
    return moved


def _remove_plain(folder: int, name: str) -> bool:
    """Delete a file or an empty folder; return whether it was one. Raises OSError for a mount point."""
    if not _is_folder(folder, name):
        os.unlink(name, dir_fd=folder)
        return True
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _is_folder(folder: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


# reading -------------------------------------------------------------------------------------------------------------


def list_names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted. Raises OSError, also for a link."""
    with hold_folder(folder) as fd:
        return sorted(os.listdir(fd))  # noqa: PTH208 - by descriptor


def sync(folder: Path) -> None:
    """Flush the renames in a folder to the disk."""
    with hold_folder(folder) as fd:
        os.fsync(fd)


def limit_access(folder: Path, mask: int) -> None:
    """Take rights that are not in `mask` away from a folder of this user; the setgid bit stays."""
    with hold_folder(folder) as fd:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & 0o777 & ~mask:
            os.fchmod(fd, mode & (0o7000 | mask))


def remove_empty(folder: Path) -> bool:
    """Remove a folder if it is empty; return whether it is gone."""
    try:
        with hold_folder(folder.parent) as parent:
            os.rmdir(folder.name, dir_fd=parent)
    except OSError:
        return False
    return True
