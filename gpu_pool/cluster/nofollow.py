"""Paths in folders of workers, which may put a link in the place of any part at any time: none is followed."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

STEP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_folder(path: Path, *, make: bool = False) -> int:
    """Return the descriptor of a folder, which is made, with those above it, on demand.

    Raises OSError where a part of the path is a link or no folder.
    """
    at = os.open("/", STEP)
    try:
        for part in path.parts[1:]:
            if make:
                with suppress(OSError):  # what can't be made can't be opened
                    os.mkdir(part, dir_fd=at)
            before, at = at, os.open(part, STEP, dir_fd=at)
            os.close(before)
    except OSError:
        os.close(at)
        raise
    return at


def open_file(path: Path) -> int:
    """Return the descriptor of a regular file to read. Raises OSError for anything else, and for links on the way."""
    folder = open_folder(path.parent)
    try:
        file = os.open(path.name, _READ, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.ELOOP, "no regular file", str(path))
    return file


def list_names(path: Path) -> list[str]:
    """Return what is in a folder, in order. Raises OSError where a part of the path is a link."""
    folder = open_folder(path)
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  a descriptor has no path
    finally:
        os.close(folder)
