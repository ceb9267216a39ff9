"""Open paths in which no part is a link: users of the share may replace any folder of it by one.

Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from pathlib import Path, PurePath

OPENAT2 = 437
"""The number of the system call, the same on all machines that Python runs on but Alpha."""
AT_FDCWD = -100
NO_XDEV, NO_SYMLINKS, BENEATH = 0x01, 0x04, 0x08
STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ATTEMPTS = 8
TRY_AGAIN = (errno.EINTR, errno.EAGAIN)
"""EAGAIN: something was renamed meanwhile, so that the kernel can't be sure."""


class OpenHow(ctypes.Structure):
    """`struct open_how` of the kernel."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_nofollow(
    path: Path | str, flags: int, mode: int = 0, *, folder: int | None = None, same_mount: bool = False
) -> int:
    """Open a path and return its descriptor. Raises OSError where any part of the path is a link.

    folder      the descriptor where a relative path begins; the path stays below it
    same_mount  raise OSError also where the path crosses a mount point
    """
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    if has_openat2():
        return _call_openat2(path, flags, mode, folder, same_mount=same_mount)
    return _walk(PurePath(path), flags, mode, folder, same_mount=same_mount)


def open_folder(path: Path | str, *, folder: int | None = None, same_mount: bool = False) -> int:
    """Open a folder to list and to change it; like `open_nofollow`."""
    return open_nofollow(path, os.O_RDONLY | os.O_DIRECTORY, folder=folder, same_mount=same_mount)


@cache
def has_openat2() -> bool:
    """Whether the kernel has openat2 (Linux 5.6), and no filter refuses it."""
    try:
        os.close(_call_openat2("/", STEP, 0, None, same_mount=False))
    except OSError:
        return False
    return True


@cache
def _load_libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call_openat2(path: Path | str, flags: int, mode: int, folder: int | None, *, same_mount: bool) -> int:
    resolve = NO_SYMLINKS | (0 if folder is None else BENEATH) | (NO_XDEV if same_mount else 0)
    how = OpenHow(flags, mode if flags & os.O_CREAT else 0, resolve)
    start, name = ctypes.c_long(AT_FDCWD if folder is None else folder), os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    number = errno.EAGAIN
    for _ in range(ATTEMPTS):
        fd = int(_load_libc().syscall(OPENAT2, start, name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in TRY_AGAIN:
            break
    raise OSError(number, os.strerror(number), os.fspath(path))


def _walk(path: PurePath, flags: int, mode: int, folder: int | None, *, same_mount: bool) -> int:
    """Open one part after the other, as a kernel without openat2 requires it."""
    if folder is not None and (path.is_absolute() or ".." in path.parts):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(path))
    parts = list(path.parts[1:] if path.is_absolute() else path.parts) or ["."]
    at = os.open("/" if path.is_absolute() else ".", STEP, dir_fd=None if path.is_absolute() else folder)
    try:
        device = os.fstat(at).st_dev
        for part in parts[:-1]:
            before, at = at, os.open(part, STEP, dir_fd=at)
            os.close(before)
        opened = os.open(parts[-1], flags, mode, dir_fd=at)
    finally:
        os.close(at)
    if same_mount and os.fstat(opened).st_dev != device:
        os.close(opened)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(path))
    return opened
