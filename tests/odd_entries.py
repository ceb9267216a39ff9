"""Every kind of thing that a share may hold, for tests that put each into every place."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STRANGER = 12345
CAPABILITY_VERSION = 0x20080522
POWERS = {"chown": 0, "dac_override": 1, "dac_read_search": 2, "fowner": 3, "linux_immutable": 9}
"""What root can do to the files of others, by the numbers of the kernel."""
JOB = b'{"avatar": "face.jpg", "audio": "voice.wav"}'
SUFFIXES = ("", ".json", ".wav", ".jpg", ".cancel", ".retry")
NAMES = {
    "not UTF-8": b"caf\xe9",
    "255 bytes": b"n" * 248,
    "newline": b"a\nb",
    "escape": b"\x1b[2J\x1b]0;x\x07",
    "backslash": b"..\\..\\x",
    "leading dots": b"...x",
    "percent": b"%s%n$(id)`id`",
    "right to left": "\u202egnp".encode(),
    "dash": b"--help",
    "space": b" ",
}


def write(path: Path) -> None:
    """Make a new file; follow no link that is there."""
    with path.open("xb") as file:
        file.write(JOB)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_full_folder(path: Path) -> None:
    path.mkdir()
    (path / "inner").mkdir()
    (path / "inner" / "x.json").write_bytes(JOB)


def make_link(path: Path) -> None:
    path.symlink_to("/proc/version")


def make_folder_link(path: Path) -> None:
    path.symlink_to("/proc/self/net")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_socket(path: Path) -> None:
    """Bind by a short path: the system's limit is 108 bytes."""
    fd = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fsencode(f"/proc/self/fd/{fd}/") + os.fsencode(path.name))
    os.close(fd)


def make_unreadable(path: Path) -> None:
    write(path)
    path.chmod(0)


def make_unreadable_folder(path: Path) -> None:
    make_full_folder(path)
    path.chmod(0)


def make_immutable(path: Path) -> None:
    write(path)
    set_immutable(path)


def make_immutable_folder(path: Path) -> None:
    make_full_folder(path)
    set_immutable(path)


def make_foreign(path: Path) -> None:
    write(path)
    path.chmod(0o600)
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def make_foreign_folder(path: Path) -> None:
    make_full_folder(path)
    path.chmod(0o755)
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def make_empty(path: Path) -> None:
    path.touch()


def make_case_twins(path: Path) -> None:
    write(path)
    write(path.with_name(path.name.upper()))


KINDS: dict[str, Callable[[Path], None]] = {
    "file": write,
    "empty": make_empty,
    "folder": make_folder,
    "full folder": make_full_folder,
    "link": make_link,
    "link to a folder": make_folder_link,
    "dangling link": make_dangling_link,
    "loop": make_loop,
    "pipe": os.mkfifo,
    "socket": make_socket,
    "unreadable": make_unreadable,
    "unreadable folder": make_unreadable_folder,
    "immutable": make_immutable,
    "immutable folder": make_immutable_folder,
    "foreign": make_foreign,
    "foreign folder": make_foreign_folder,
    "case twins": make_case_twins,
}


def set_immutable(path: Path) -> None:
    subprocess.run(["chattr", "+i", "--", str(path)], check=True, capture_output=True)


def can_set_immutable(folder: Path) -> bool:
    """Whether the file system knows the flag, and we may set it."""
    probe = folder / "probe"
    probe.touch()
    try:
        set_immutable(probe)
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        remove(probe)
    return True


def put_all_names(folder: Path, suffix: str) -> None:
    """Put a file and a folder of each odd name into a folder."""
    for raw in NAMES.values():
        name = os.fsdecode(raw + suffix.encode())
        write(folder / name)
        make_full_folder(folder / (name[1:] + "d"))


def put_kind(folder: Path, kind: str, suffix: str) -> None:
    """Put one kind of thing into a folder, unless its file system doesn't know it, or the name is taken.

    Never write to a path that exists: it may be a link, and we are root.
    """
    path = folder / f"odd{suffix}"
    if not os.path.lexists(path) and ("immutable" not in kind or can_set_immutable(folder)):
        KINDS[kind](path)


@contextmanager
def dropping_powers() -> Iterator[None]:
    """Act as an ordinary user: the rights of files hold for root, too, and so in threads that are started meanwhile.

    Another user could not read this Python's own files everywhere.
    """
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    before = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~sum(1 << power for power in POWERS.values())
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


def remove(path: Path) -> None:
    """Delete what a test has made, immutable things too."""
    subprocess.run(["chattr", "-R", "-f", "-i", "--", str(path)], check=False, capture_output=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def remove_flags(path: Path) -> None:
    """Let a path be changed again."""
    subprocess.run(["chattr", "-i", "--", str(path)], check=True, capture_output=True)
