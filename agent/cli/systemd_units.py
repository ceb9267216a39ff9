"""What `musedrop service install` writes, as texts: units from systemd/, a drop-in for the share, the settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.errors import UserError
from agent.settings import Folders, Settings
from agent.settings_file import format_settings

UNIT = "musedrop.service"
SHIPPED_PROGRAM = "/opt/musedrop/bin/musedrop"
OWN = tuple(Path(place, "musedrop") for place in ("/var/lib", "/var/cache", "/var/log"))
"""State, cache and logs of the system's service: systemd makes them, and lets it write there."""
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ProtectHome= hides."""


@dataclass(frozen=True, slots=True)
class File:
    """One file to write. `keep`: one that is there already is somebody's work and stays as it is."""

    path: Path
    text: str
    keep: bool = False

    @property
    def state(self) -> str:
        """How it is on disk now."""
        try:
            same = self.path.read_text(encoding="utf-8") == self.text
        except FileNotFoundError:
            return "new"
        return "there already" if same else "there, and kept as it is" if self.keep else "changed"


def shipped(name: str) -> str:
    """A file of systemd/: beside the packages in a checkout, inside the package where it was installed."""
    here = Path(__file__).parents[1]
    places = (here / "systemd" / name, here.parent / "systemd" / name)
    return next(place for place in places if place.is_file()).read_text(encoding="utf-8")


def unit(name: str, program: Path) -> str:
    return shipped(name).replace(SHIPPED_PROGRAM, in_unit(program).replace("$", "$$"))


def system_settings(share: Path) -> str:
    return format_settings(str(share), *map(str, OWN))


def check_program(program: Path) -> None:
    """Raises UserError where the protection of the machine's service would hide the program."""
    if hidden(program):
        hint = "make a virtual environment in /opt/musedrop and install it there, or use --user"
        raise UserError(f"{program} lies in a home folder, which the service can't see: {hint}")


def system_files(program: Path, settings: Settings, settings_text: str, etc: Path = Path("/etc")) -> list[File]:
    """The service of the whole machine."""
    units = etc / "systemd" / "system"
    return [
        File(etc / "musedrop" / "musedrop.toml", settings_text, keep=True),
        File(etc / "sysusers.d" / "musedrop.conf", shipped("sysusers.conf")),
        File(units / "musedrop-nvidia.service", shipped("musedrop-nvidia.service")),
        File(units / UNIT, unit(UNIT, program)),
        File(units / f"{UNIT}.d" / "share.conf", drop_in(settings.folders, mount_of(settings.share))),
    ]


def user_files(program: Path, home: Path, settings_text: str) -> list[File]:
    """The service of one user, and the notifications for the desktop."""
    units = home / ".config" / "systemd" / "user"
    return [
        File(home / ".config" / "musedrop" / "musedrop.toml", settings_text, keep=True),
        File(units / UNIT, unit("musedrop-user.service", program)),
        File(units / "musedrop-notify.service", unit("musedrop-notify.service", program)),
    ]


def drop_in(folders: Folders, mount: Path | None) -> str:
    """What the unit has to know of this machine's share, and of other folders that lie where it may not write."""
    places = (folders.share, folders.state, folders.cache, folders.logs)
    writable = [place for place in dict.fromkeys(places) if not any(map(place.is_relative_to, OWN))]
    lines = [
        "# This machine's share. `musedrop service install` makes this file from the settings: run it again when the",
        "# share moves.",
        "",
        "[Unit]",
        "# The ledger's disk has to be there.",
        f"RequiresMountsFor={in_unit(folders.state)}",
    ]
    if mount is not None:
        name = mount_unit(mount).replace("%", "%%")
        lines += [
            "# The share is mounted first. Where that fails the daemon starts nevertheless, says so, and waits for it.",
            f"Wants={name}",
            f"After={name}",
        ]
    lines += [
        "",
        "[Service]",
        "# The only folders of others that the daemon may write to. The minus: one that is missing prevents no start,",
        "# but has to be there, at least as an empty mount point, to be writable later.",
        *(f"ReadWritePaths={in_unit(place, '-')}" for place in writable),
    ]
    at_home = [place for place in writable if hidden(place)]
    if at_home:
        lines += ["# Of the homes, which are hidden, only this.", "ProtectHome=tmpfs"]
        lines += [f"BindPaths={in_unit(place, '-')}" for place in at_home]
    return "\n".join(lines) + "\n"


def hidden(path: Path) -> bool:
    return any(map(path.is_relative_to, HOMES))


def in_unit(path: Path, prefix: str = "") -> str:
    """A path as a word of a unit file: quoted where it needs to be, and % is no specifier."""
    text = f"{prefix}{path}"
    if not text.isprintable():
        raise UserError(f"{json.dumps(str(path))} can't stand in a unit file: choose a folder with a printable name")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if set(text) & set(" '\"\\;") else text


def mount_of(path: Path) -> Path | None:
    """Where the file system of a folder is mounted; None for the root."""
    return next((place for place in (path, *path.parents[:-1]) if place.is_mount()), None)


def mount_unit(path: Path) -> str:
    r"""The name of a mount's unit.

    >>> mount_unit(Path("/srv/muse-drop"))
    'srv-muse\\x2ddrop.mount'
    """
    name = "-".join(map(escaped, path.parts[1:]))
    return (f"\\x2e{name[1:]}" if name.startswith(".") else name) + ".mount"


def escaped(part: str) -> str:
    """One folder's name; what is no ASCII letter, digit or one of :_. becomes its bytes."""
    plain = re.compile(rb"[A-Za-z0-9:_.]")
    return "".join(char.decode() if plain.match(char) else f"\\x{char[0]:02x}" for char in map(single, part.encode()))


def single(byte: int) -> bytes:
    return bytes([byte])


def outdated(files: Iterable[File]) -> list[Path]:
    """Files that an upgrade would write otherwise."""
    return [file.path for file in files if not file.keep and file.state == "changed"]
