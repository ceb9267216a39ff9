"""Who may read and change what: the modes of share and state, and how the kernel guards links."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.fs.layout import Folders
from models.nofollow import has_openat2

HARD_LINKS = Path("/proc/sys/fs/protected_hardlinks")


@dataclass(frozen=True, slots=True)
class Access:
    """What is open to whom, and what to do if that is more or less than it should be; "" if it is right."""

    what: str
    found: str
    advice: str = ""


def list_access(folders: Folders) -> Iterator[Access]:
    """Yield what exists of the share and the state."""
    if (share := lstat(folders.share)) is None:
        return
    yield Access(*describe(folders.share, share))
    for folder in (folders.inbox, folders.outbox, folders.failed, folders.archive, folders.avatars):
        if (status := lstat(folder)) is not None:
            yield Access(*describe(folder, status), check_shared(folder, status, share))
    private = folders.share_id_file.parent
    for folder in (private, folders.claimed, folders.staging, folders.trash, *folders.of_state):
        if (status := lstat(folder)) is not None:
            yield Access(*describe(folder, status), check_private(folder, status))
    for path in (folders.state, folders.ledger):
        if (status := lstat(path)) is not None:
            yield Access(*describe(path, status), check_state(path, status))
    yield from check_kernel()


def lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def describe(path: Path, status: os.stat_result) -> tuple[str, str]:
    """Return a path and its owner, group, mode and readers in words."""
    mode = stat.S_IMODE(status.st_mode)
    others = describe_rights(mode & 0o7)
    rights = f"the group {describe_rights(mode >> 3 & 0o7)}, other users {others}"
    return str(path), f"{name_user(status.st_uid)}:{name_group(status.st_gid)} {mode:04o}: {rights}"


def describe_rights(bits: int) -> str:
    words = [word for bit, word in ((0o4, "read"), (0o2, "write"), (0o1, "enter")) if bits & bit]
    return " and ".join(words) or "nothing"


def check_shared(folder: Path, status: os.stat_result, share: os.stat_result) -> str:
    """Return what to do about a folder for users."""
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is a link or a file: put a folder there; to have it on another disk, mount that one there"
    if status.st_mode & stat.S_IWOTH:
        return f"every user of this machine can submit and change jobs: chmod o-w {folder}"
    if status.st_gid != share.st_gid:
        return f"its group is not that of the share: chgrp {name_group(share.st_gid)} {folder}"
    if status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_ISGID:
        return f"new files in it don't belong to the group: chmod g+s {folder}"
    return ""


def check_private(folder: Path, status: os.stat_result) -> str:
    """Return what to do about a folder that is the daemon's own."""
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is a link or a file: remove it, and the daemon makes the folder"
    if status.st_mode & 0o077 and not is_behind(folder.parent):
        return f"only the daemon's user should get in: chmod go= {folder}"
    return ""


def is_behind(folder: Path) -> bool:
    """Whether a folder keeps all but its owner and its group out."""
    status = lstat(folder)
    return status is not None and not status.st_mode & 0o027


def check_state(path: Path, status: os.stat_result) -> str:
    if status.st_mode & stat.S_IWGRP or status.st_mode & stat.S_IWOTH:
        return f"only the daemon's user should write: chmod go-w {path}"
    return "" if not status.st_mode & 0o007 or is_behind(path.parent) else f"every user can read it: chmod o= {path}"


def check_kernel() -> Iterator[Access]:
    try:
        guarded = HARD_LINKS.read_text().strip() != "0"
    except OSError:
        guarded = True
    if not guarded:
        advice = "sysctl fs.protected_hardlinks=1"
        yield Access("hard links", "users can link files into the inbox that they may not read", advice)
    if not has_openat2():
        yield Access("openat2", "not in this kernel, or refused: folders are opened one by one, which is as safe")


def name_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def name_group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
