"""Run systemd's commands, write and remove its files, and create the folders of the share."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from agent.cli.systemd_units import UNIT, UnitFile
from agent.errors import UserError
from agent.fs.folders import hold_folder, make_folders
from agent.settings import Folders

PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "StatusText", "MainPID", "NRestarts", "UnitFileState")
USER = "musedrop"
BOOTED = Path("/run/systemd/system")
"""The folder that exists where systemd runs the machine."""
SHARED_MODE, PRIVATE_MODE = 0o2770, 0o700
"""Modes of new folders of a share; the setgid bit gives files in the shared ones to the group."""


class Systemd:
    """The service manager of the system, or of the current user."""

    def __init__(self, *, user: bool) -> None:
        self.scope = ["--user"] if user else []

    def reload(self) -> None:
        self._run("daemon-reload")

    def start(self) -> None:
        """Start the daemon, now and with the machine, and wait until it is ready."""
        self._run("enable", "--now", UNIT)

    def stop(self, *units: str) -> None:
        self._run("disable", "--now", *units)

    def is_active(self) -> bool:
        return self.read_properties()["ActiveState"] in ("active", "activating", "reloading")

    def read_properties(self) -> dict[str, str]:
        shown = self._run("show", "--property", ",".join(PROPERTIES), UNIT)
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def _run(self, *words: str) -> str:
        return run_program("systemctl", *self.scope, *words)


def run_program(program: str, *words: str) -> str:
    """Run a program and return its output. Raises UserError with its message where it fails."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        raise UserError(f"there is no {program} here: the service needs systemd; without it use `musedrop run`")
    done = subprocess.run([path, *words], capture_output=True, text=True, check=False)  # noqa: S603 - a list, no shell
    if done.returncode:
        raise UserError(f"{program} {' '.join(words)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def require_systemd() -> None:
    """Raise UserError where systemd does not run this machine, as in most containers."""
    if not BOOTED.is_dir():
        raise UserError("systemd doesn't run this machine: start the daemon with `musedrop run`, or by your own means")


@contextmanager
def write_or_restore(files: Sequence[UnitFile]) -> Iterator[None]:
    """Write the files; where what follows fails, everything is as it was before."""
    before = {file.path: read_or_none(file.path) for file in files}
    made: list[Path] = []
    with ExitStack() as on_error:
        on_error.callback(restore, before, made)
        for file in files:
            made += make_parents(file.path.parent)
            if not (file.keep and file.path.exists()):
                file.path.write_text(file.text, encoding="utf-8")
        yield
        on_error.pop_all()


def restore(before: Mapping[Path, str | None], made: Sequence[Path]) -> None:
    """Give the files their old texts, and remove those that are new, with the folders that were made for them."""
    for path, text in before.items():
        path.unlink(missing_ok=True) if text is None else path.write_text(text, encoding="utf-8")
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


def read_or_none(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def make_parents(folder: Path) -> list[Path]:
    """Make the folders that are missing; return them, the outermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def find_removable(files: Iterable[UnitFile]) -> list[Path]:
    """Return the files to remove when uninstalling: those that exist, except the settings."""
    return [file.path for file in files if not file.keep and file.path.exists()]


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files, and drop-in folders that are empty then."""
    for path in paths:
        path.unlink()
        if path.parent.suffix == ".d" and path.parent.name.startswith("musedrop") and not any(path.parent.iterdir()):
            path.parent.rmdir()


def add_user() -> None:
    run_program("systemd-sysusers", "/etc/sysusers.d/musedrop.conf")


def make_share_folders(folders: Folders, owner: str) -> None:
    """Create the missing folders of the share; with an owner, for that user and group."""
    private = folders.share_id_file.parent
    folders.share.parent.mkdir(parents=True, exist_ok=True)
    for folder in (folders.share, private, *folders.of_share):
        if not os.path.lexists(folder):
            make_folders([folder], PRIVATE_MODE if owner or folder.is_relative_to(private) else 0o777)
            if owner:
                give_folder(folder, owner, PRIVATE_MODE if folder.is_relative_to(private) else SHARED_MODE)


def give_folder(folder: Path, owner: str, mode: int) -> None:
    """Give a new folder to a user and their group. Raises OSError if it has become a link or was given already.

    Members of the group may write beside it: by its name, root could be made to give them any other file.
    """
    uid, gid = pwd.getpwnam(owner).pw_uid, grp.getgrnam(owner).gr_gid
    with hold_folder(folder) as fd:
        if os.fstat(fd).st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it was replaced while it was made", str(folder))
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)


def enable_linger() -> str:
    """Let this user's services run without a session. Return a message: done, or what to do."""
    name = pwd.getpwuid(os.getuid()).pw_name
    try:
        run_program("loginctl", "enable-linger", name)
    except UserError:
        return f"To let it run while you are logged out: sudo loginctl enable-linger {name}"
    return "It also runs while you are logged out."
