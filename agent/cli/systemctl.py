"""systemd's own commands, and what they need around them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from agent.cli.systemd_units import UNIT, File
from agent.errors import UserError
from agent.settings import Folders

PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "StatusText", "MainPID", "NRestarts", "UnitFileState")
USER = "musedrop"
SHARED_MODE, PRIVATE_MODE = 0o2770, 0o700
"""Of folders that are made in a share: files in the shared ones belong to the group, whoever drops them."""


class Systemd:
    """The system's manager, or one user's."""

    def __init__(self, *, user: bool) -> None:
        self.scope = ["--user"] if user else []

    def reload(self) -> None:
        self._ask("daemon-reload")

    def stop(self, *units: str) -> None:
        self._ask("disable", "--now", *units)

    def is_active(self) -> bool:
        return self.properties()["ActiveState"] in ("active", "activating", "reloading")

    def properties(self) -> dict[str, str]:
        shown = self._ask("show", "--property", ",".join(PROPERTIES), UNIT)
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def _ask(self, *words: str) -> str:
        return called("systemctl", *self.scope, *words)


def called(program: str, *words: str) -> str:
    """What a program says that has to succeed. Raises UserError with its own words."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        raise UserError(f"there is no {program} here: the service needs systemd; without it use `musedrop run`")
    done = subprocess.run([path, *words], capture_output=True, text=True, check=False)  # noqa: S603 - a list, no shell
    if done.returncode:
        raise UserError(f"{program} {' '.join(words)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def write(files: Iterable[File]) -> None:
    for file in files:
        if file.keep and file.path.exists():
            continue
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.write_text(file.text, encoding="utf-8")


def removable(files: Iterable[File]) -> list[Path]:
    """What an uninstallation takes away: what was written and is there still, never the settings."""
    return [file.path for file in files if not file.keep and file.path.exists()]


def remove(paths: Iterable[Path]) -> None:
    """Remove files, and the folders of drop-ins that are empty then."""
    for path in paths:
        path.unlink()
        if path.parent.suffix == ".d" and path.parent.name.startswith(UNIT) and not any(path.parent.iterdir()):
            path.parent.rmdir()


def add_user() -> None:
    called("systemd-sysusers", "/etc/sysusers.d/musedrop.conf")


def lay_out(folders: Folders, owner: str) -> None:
    """Make the folders of the share that are missing; with an owner, for that user and its group."""
    private = folders.share_id_file.parent
    for folder in (folders.share, private, *folders.of_share):
        if not folder.exists():
            folder.mkdir(parents=True)
            if owner:
                shutil.chown(folder, owner, owner)
                folder.chmod(PRIVATE_MODE if folder.is_relative_to(private) else SHARED_MODE)


def linger() -> str:
    """Let this user's services run without a session; says so, or what to do where that isn't allowed."""
    name = pwd.getpwuid(os.getuid()).pw_name
    try:
        called("loginctl", "enable-linger", name)
    except UserError:
        return f"to let it run while you are logged out: sudo loginctl enable-linger {name}"
    return "It will run while you are logged out, too."
