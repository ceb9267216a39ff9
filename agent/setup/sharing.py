"""Who may drop files into a share: the commands that let a group in, and what Samba needs, to be pasted."""

from __future__ import annotations

import os
import pwd
import shlex
from typing import TYPE_CHECKING

from agent.service.access import lstat, name_group

if TYPE_CHECKING:
    from agent.fs.layout import Folders

OWN_GROUP = "musedrop"


def find_group(folders: Folders) -> str:
    """Return the group that may drop files; "" where only the owner of the inbox, or every user, may."""
    status = lstat(folders.inbox)
    if status is None or status.st_mode & 0o022 != 0o020:
        return ""
    name = name_group(status.st_gid)
    return name if name == OWN_GROUP or status.st_gid != find_own_gid(status.st_uid) else ""


def find_own_gid(uid: int) -> int:
    """Return the first group of a user, which on most machines has no other members."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return -1


def list_group_commands(folders: Folders) -> tuple[str, ...]:
    """Return the commands that let the members of a group in; where one may already, how it gets a member."""
    if group := find_group(folders):
        return (f"sudo usermod -aG {shlex.quote(group)} NAME",)
    places = " ".join(shlex.quote(str(folder)) for folder in (folders.share, *list_shared(folders)))
    return (
        f"sudo groupadd --force {OWN_GROUP}",
        f"sudo chgrp {OWN_GROUP} {places}",
        f"sudo chmod 2770 {places}",
        f"sudo usermod -aG {OWN_GROUP} NAME",
    )


def list_shared(folders: Folders) -> tuple[os.PathLike[str], ...]:
    return folders.inbox, folders.outbox, folders.failed, folders.archive, folders.avatars


def format_samba(folders: Folders) -> str:
    """Return the section of smb.conf that serves the share to the members of the group."""
    group = find_group(folders) or OWN_GROUP
    lines = {
        "path": folders.share,
        "valid users": f"@{group}",
        "force group": group,
        "read only": "no",
        "create mask": "0660",
        "directory mask": "2770",
        "veto files": "/.musedrop/",
    }
    return "[musedrop]\n" + "".join(f"   {key} = {value}\n" for key, value in lines.items())
