"""The avatar library by files of the inbox: FACE.SUFFIX.avatar joins it, NAME.forget leaves it."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path

from agent.fs.folders import make_folders, move, sync
from agent.intake.paths import PathLookup
from agent.jobs.spec import AVATAR_SUFFIXES, is_library_name
from agent.results.outbox import FolderNames
from agent.settings import Folders


class Refused(OSError):
    """A control file asks for what can't be done; `strerror` says why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)


def add_avatar(folders: Folders, file: Path, name: str) -> Path:
    """Move a face of the inbox into the library under `name`, which has a suffix; return where it is.

    Raises OSError: Refused where the library has that avatar, or `name` can't be one.
    """
    target = folders.avatars / name
    if not is_library_name(target.stem) or target.suffix.lower() not in AVATAR_SUFFIXES:
        raise Refused(errno.EINVAL, "an avatar's file is called NAME.jpg.avatar, or has another suffix of a face")
    if (known := find_avatar(folders, target.stem)) is not None:
        raise Refused(errno.EEXIST, f"the library has {known.name} already")
    move(file, target)
    sync(folders.avatars)
    return target


def forget_avatar(folders: Folders, name: str, at_ms: int) -> Path | None:
    """Move an avatar out of the library into the archive of the day; None where there is none. Raises OSError."""
    found = find_avatar(folders, name)
    if found is None:
        return None
    day = folders.archive / f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d}"
    target = day / FolderNames().reserve(day, name)
    make_folders([day, target])
    move(found, target / found.name)
    sync(target)
    sync(folders.avatars)
    return target


def find_avatar(folders: Folders, name: str) -> Path | None:
    """Return the file or folder of an avatar, None where there is none. Raises OSError."""
    return PathLookup().find_avatar(folders.avatars, name, AVATAR_SUFFIXES) if is_library_name(name) else None
