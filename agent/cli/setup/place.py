"""Where a new set-up goes. One that exists is never written to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli import service as service_commands
from agent.cli.console import speak
from agent.cli.systemctl import BOOTED
from agent.errors import UserError
from agent.fs import atomic_write_bytes
from agent.service.process import let_group_read
from agent.service.share_folders import lay_out
from agent.settings_file import NAME, BadSettings, find_settings_file, format_settings, load_settings

if TYPE_CHECKING:
    from agent.cli.setup.guide import Guide


def find_or_make(guide: Guide, folder: Path | None, config: Path | None, *, service: bool | None) -> Path:
    """Return the settings file that applies, which is made where there is none. Raises UserError."""
    if folder is not None:
        target = folder.absolute() / NAME
        return target if target.exists() else lay_out_new(target, "./share", "./state")
    try:
        return find_settings_file(config, os.environ, Path.cwd())
    except BadSettings as missing:
        if missing.where:  # --config or the environment names one
            raise
    if os.geteuid() == 0:
        return install_for_all(guide, service=service)
    home = Path.home()
    share = guide.ask_path("Where should the shared folder be?", home / "musedrop")
    state = home / ".local" / "state" / "musedrop"
    return lay_out_new(home / ".config" / "musedrop" / NAME, str(share.absolute()), str(state))


def lay_out_new(target: Path, share: str, state: str) -> Path:
    """Write the settings and make the folders. Raises BadSettings where share and state can't be so."""
    let_group_read()
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(target, format_settings(share, state).encode())
    try:
        lay_out(load_settings(target).folders)
    except BadSettings:
        target.unlink()
        raise
    return target


def install_for_all(guide: Guide, *, service: bool | None) -> Path:
    """Set up the service of this machine, as root does: it makes user, settings and folders."""
    if not BOOTED.is_dir():
        raise UserError("systemd doesn't run this machine: give a folder, as in `musedrop setup /srv/musedrop`")
    question = speak("Install the service of this machine, with a user of its own and the share /srv/musedrop?")
    if not guide.confirm(question, given=service, proposal=False):
        raise UserError("nothing was changed")
    service_commands.install(yes=True)
    return service_commands.SYSTEM_SETTINGS
