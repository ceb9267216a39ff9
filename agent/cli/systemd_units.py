"""The files of `musedrop service install`: units from systemd/, a drop-in, the settings."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.errors import UserError
from agent.settings import Folders, Settings
from agent.settings_file import format_settings

UNIT = "musedrop.service"
PAGE_UNIT, PAGE_SOCKET = "musedrop-page.service", "musedrop-page.socket"
PAGE_ADDRESS = "127.0.0.1:8765"
"""The address in the shipped socket, which `page.listen` replaces."""
SHIPPED_PROGRAM = "/opt/musedrop/bin/musedrop"
SYSTEMD_FOLDERS = tuple(Path(place, "musedrop") for place in ("/var/lib", "/var/cache", "/var/log"))
"""State, cache and logs of the system service: systemd creates them and makes them writable."""
HOME_FOLDERS = (Path("/home"), Path("/root"), Path("/run/user"))
"""The folders that ProtectHome= hides."""


@dataclass(frozen=True, slots=True)
class UnitFile:
    """One file to write. `keep`: an existing file is not overwritten."""

    path: Path
    text: str
    keep: bool = False

    @property
    def state(self) -> str:
        """Its state on disk."""
        try:
            same = self.path.read_text(encoding="utf-8") == self.text
        except FileNotFoundError:
            return "new"
        return "there already" if same else "there, and kept as it is" if self.keep else "changed"


def read_shipped(name: str) -> str:
    """Return the text of a file of systemd/, in a checkout or in the installed package."""
    here = Path(__file__).parents[1]
    places = (here / "systemd" / name, here.parent / "systemd" / name)
    return next(place for place in places if place.is_file()).read_text(encoding="utf-8")


def render_unit(name: str, program: Path) -> str:
    return read_shipped(name).replace(SHIPPED_PROGRAM, quote_path(program).replace("$", "$$"))


def render_system_settings(share: Path) -> str:
    return format_settings(str(share), *map(str, SYSTEMD_FOLDERS))


def check_program(program: Path) -> None:
    """Raise UserError if the program is in a home folder: the system service can't see it."""
    if is_hidden(program):
        hint = "create a virtual environment in /opt/musedrop and install it there, or use --user"
        raise UserError(f"{program} is in a home folder, which the service can't see: {hint}")


def plan_system_files(
    program: Path, settings: Settings, settings_text: str, etc: Path = Path("/etc")
) -> list[UnitFile]:
    """Return the files of the system service."""
    units = etc / "systemd" / "system"
    return [
        UnitFile(etc / "musedrop" / "musedrop.toml", settings_text, keep=True),
        UnitFile(etc / "sysusers.d" / "musedrop.conf", read_shipped("sysusers.conf")),
        UnitFile(units / "musedrop-nvidia.service", read_shipped("musedrop-nvidia.service")),
        UnitFile(units / UNIT, render_unit(UNIT, program)),
        UnitFile(units / f"{UNIT}.d" / "share.conf", render_drop_in(settings.folders, find_mount(settings.share))),
        UnitFile(units / "musedrop-hooks.service", render_unit("musedrop-hooks.service", program)),
        UnitFile(units / PAGE_SOCKET, read_shipped(PAGE_SOCKET).replace(PAGE_ADDRESS, settings.page.listen)),
        UnitFile(units / PAGE_UNIT, render_unit(PAGE_UNIT, program)),
        UnitFile(units / f"{PAGE_UNIT}.d" / "share.conf", render_page_drop_in(settings.folders)),
    ]


def plan_user_files(program: Path, home: Path, settings_text: str) -> list[UnitFile]:
    """Return the files of a user's own service, and of the desktop notifications."""
    units = home / ".config" / "systemd" / "user"
    return [
        UnitFile(home / ".config" / "musedrop" / "musedrop.toml", settings_text, keep=True),
        UnitFile(units / UNIT, render_unit("musedrop-user.service", program)),
        UnitFile(units / "musedrop-notify.service", render_unit("musedrop-notify.service", program)),
        UnitFile(units / PAGE_SOCKET, read_shipped(PAGE_SOCKET)),
        UnitFile(units / PAGE_UNIT, render_unit("musedrop-page-user.service", program)),
    ]


def render_drop_in(folders: Folders, mount: Path | None) -> str:
    """Return the drop-in that names the share and other folders that the unit writes to."""
    places = (folders.share, folders.state, folders.cache, folders.logs)
    writable = [place for place in dict.fromkeys(places) if not any(map(place.is_relative_to, SYSTEMD_FOLDERS))]
    lines = [
        "# This machine's share. `musedrop service install` writes this file from the settings: run it again when",
        "# the share moves.",
        "",
        "[Unit]",
        "# The file system of the ledger is required.",
        f"RequiresMountsFor={quote_path(folders.state)}",
    ]
    if mount is not None:
        name = name_mount_unit(mount).replace("%", "%%")
        lines += [
            "# The share is mounted first. If that fails, the daemon starts, reports it, and waits for it.",
            f"Wants={name}",
            f"After={name}",
        ]
    lines += [
        "",
        "[Service]",
        "# The only other folders that the daemon may write to. The minus: the daemon starts without a missing",
        "# folder, but the folder must exist, at least as an empty mount point, to be writable later.",
        *(f"ReadWritePaths={quote_path(place, '-')}" for place in writable),
    ]
    at_home = [place for place in writable if is_hidden(place)]
    if at_home:
        lines += ["# The only visible folder in the homes.", "ProtectHome=tmpfs"]
        lines += [f"BindPaths={quote_path(place, '-')}" for place in at_home]
    return "\n".join(lines) + "\n"


def render_page_drop_in(folders: Folders) -> str:
    """Return the drop-in of the page: it writes to the inbox, and sees share and state alone in the homes."""
    lines = ["# Written by `musedrop service install`: run it again when the share moves.", "", "[Service]"]
    lines += [f"ReadWritePaths={quote_path(folders.inbox, '-')}"]
    at_home = [place for place in (folders.share, folders.state) if is_hidden(place)]
    if at_home:
        lines += ["ProtectHome=tmpfs", *(f"BindReadOnlyPaths={quote_path(place, '-')}" for place in at_home)]
    if is_hidden(folders.inbox):
        lines += [f"BindPaths={quote_path(folders.inbox, '-')}"]
    return "\n".join(lines) + "\n"


def is_hidden(path: Path) -> bool:
    return any(map(path.is_relative_to, HOME_FOLDERS))


def quote_path(path: Path, prefix: str = "") -> str:
    """Return a path as a word of a unit file: quoted if necessary, % escaped. Raises UserError."""
    text = f"{prefix}{path}"
    if not text.isprintable():
        raise UserError(f"{json.dumps(str(path))} can't stand in a unit file: choose a folder with a printable name")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if set(text) & set(" '\"\\;") else text


def find_mount(path: Path) -> Path | None:
    """Return the mount point of a folder's file system; None for the root."""
    return next((place for place in (path, *path.parents[:-1]) if place.is_mount()), None)


def name_mount_unit(path: Path) -> str:
    r"""Return the name of the unit of a mount point.

    >>> name_mount_unit(Path("/srv/muse-drop"))
    'srv-muse\\x2ddrop.mount'
    """
    name = "-".join(map(escape_part, path.parts[1:]))
    return (f"\\x2e{name[1:]}" if name.startswith(".") else name) + ".mount"


def escape_part(part: str) -> str:
    """Escape one folder's name: all but ASCII letters, digits and :_. become their bytes."""
    kept = (string.ascii_letters + string.digits + ":_.").encode()
    return "".join(chr(byte) if byte in kept else f"\\x{byte:02x}" for byte in part.encode())


def find_outdated(files: Iterable[UnitFile]) -> list[Path]:
    """Return the files that an upgrade would change."""
    return [file.path for file in files if not file.keep and file.state == "changed"]
