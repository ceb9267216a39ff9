"""What a set-up is made of, and what it still lacks: the same for `musedrop setup` and the page's first run.

Nothing is changed here, and no worker is started.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fs import find_filesystem_kind, has_change_events
from agent.languages import translate
from agent.service.access import list_access
from agent.service.process import read_daemon_pid
from agent.setup.sharing import find_group, format_samba, list_group_commands
from models import catalog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.fs.layout import Folders

UNIT = Path("systemd", "user", "musedrop.service")
SYSTEM_SETTINGS = Path("/etc/musedrop/musedrop.toml")
SYSTEM_UNIT = Path("/etc/systemd/system/musedrop.service")
EXAMPLES = (Path(__file__).parent, Path(__file__).parents[2] / "inbox_example")
"""Where the face and the voice of the demo clip may be: in an installed package, and in a checkout."""
LICENCES = (
    "Licences, as their publishers say: MuseTalk MIT, sd-vae-ft-mse MIT, whisper-tiny MIT, DWPose Apache 2.0,"
    " face-parsing MIT, S3FD none stated. docs/musetalk.md says more: read them before you sell anything."
)


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a set-up.

    told      sentences on how it is
    commands  what to paste into a terminal if it should be otherwise
    text      what to paste into a file
    """

    name: str
    is_done: bool
    told: tuple[str, ...]
    commands: tuple[str, ...] = ()
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        told_zh = [translate(sentence) for sentence in self.told]
        kept = {"told": self.told, "told_zh": told_zh, "commands": self.commands, "text": self.text}
        return {"name": self.name, "done": self.is_done, **kept}


@dataclass(frozen=True, slots=True)
class Place:
    """A set-up: its folders, its settings file, and where its weights are."""

    folders: Folders
    source: Path
    models_dir: Path

    @property
    def option(self) -> str:
        """The option that names the settings in a command."""
        return f"-c {shlex.quote(str(self.source))}"


def list_steps(place: Place, devices: Sequence[Mapping[str, Any]] = ()) -> list[Step]:
    """Return all steps in their order. `devices`: rows of device_status, as far as a daemon has written some."""
    return [
        check_share(place),
        check_access(place.folders),
        check_cards(devices),
        check_weights(place),
        check_service(place),
        check_demo(place),
        check_whole(place),
    ]


def check_share(place: Place) -> Step:
    """Say where share and state are; the state must be on a local disk, and is never in the share."""
    share, state = place.folders.share, place.folders.state
    kind = find_filesystem_kind(state)
    told = [f"The share is {share}, its settings are {place.source}."]
    if state.is_relative_to(share):
        told.append(f"The state {state} is in the share, where users see it: move it, and set state to its new place.")
    else:
        told.append(f"The state is {state}, which is not in the share.")
    is_local = has_change_events(kind)
    if not is_local:
        told.append(f"The state is on a network share ({kind}): SQLite needs a local disk.")
    return Step("share", share.is_dir() and is_local and not state.is_relative_to(share), tuple(told))


def check_access(folders: Folders) -> Step:
    """Say who may drop files, and what is more open than it should be."""
    group = find_group(folders)
    told = [f"Members of the group {group} may drop files." if group else "Only the owner of the inbox may drop files."]
    told += [access.advice for access in list_access(folders) if access.advice]
    is_done = bool(group) and len(told) == 1
    return Step("access", is_done, tuple(told), list_group_commands(folders), format_samba(folders))


def check_cards(devices: Sequence[Mapping[str, Any]]) -> Step:
    """Say which cards the daemon has found."""
    rows = [row for row in devices if row["kind"] == "cuda"]
    cards = list(dict.fromkeys((row["card"], row["name"], row["total_mib"]) for row in rows))
    told = [f"{name} {card}, {total_mib / 1024:.0f} GiB" for card, name, total_mib in cards]
    if not told:
        told = ["No card is known: the preview engine runs on the processor."]
    return Step("cards", bool(cards), tuple(told), () if cards else ("musedrop doctor",))


def check_weights(place: Place) -> Step:
    """Say whether MuseTalk can run, and what it still needs, with size and licence."""
    engine, folder = catalog.ENGINES["musetalk"], place.models_dir
    if packages := catalog.find_missing_packages(engine):
        told = f"MuseTalk needs packages that are not installed: {', '.join(packages)}."
        command = f"pip install '.[{engine.extra}]'"
        return Step("weights", False, (told, "The preview engine needs none of this."), (command,))
    missing = catalog.find_missing_weights(engine, folder)
    if not missing:
        return Step("weights", True, (f"The weights of MuseTalk are in {folder}.",))
    size = catalog.sum_download_bytes(missing) / 1e9
    told = f"{len(missing)} weight files of MuseTalk are not in {folder}: about {size:.1f} GB to download."
    return Step("weights", False, (told, LICENCES), (f"musedrop models fetch {place.option}",))


def check_service(place: Place) -> Step:
    """Say whether a daemon runs, whether systemd starts it, and the commands that let it."""
    pid = read_daemon_pid(place.folders.lock)
    told = [f"The daemon runs as process {pid}." if pid else "The daemon is not running."]
    home = Path.home() / ".config"
    user_settings = home / "musedrop" / "musedrop.toml"
    scope = {SYSTEM_SETTINGS: ("sudo ", "", SYSTEM_UNIT), user_settings: ("", " --user", home / UNIT)}
    if place.source not in scope:
        told.append(f"A service has its settings in {user_settings} or {SYSTEM_SETTINGS}.")
        return Step("service", pid is not None, tuple(told), (f"musedrop run {place.option}",))
    sudo, option, unit = scope[place.source]
    told.append(f"It is installed as a service: {unit}." if unit.exists() else "It is not installed as a service.")
    commands = (f"{sudo}musedrop service install{option}", f"{sudo}systemctl{option} enable --now musedrop")
    return Step("service", unit.exists() and pid is not None, tuple(told), commands)


def check_demo(place: Place) -> Step:
    """Say whether there is a video."""
    outbox = place.folders.outbox
    if any(outbox.glob("*/result.json")) or any(outbox.glob("*/*/result.json")):
        return Step("demo", True, (f"Videos are in {outbox}.",))
    return Step("demo", False, ("No video has been made yet.",))


def check_whole(place: Place) -> Step:
    """Say whether files that are dropped become videos; `musedrop doctor` looks at more."""
    folders = place.folders
    missing = [folder for folder in (folders.inbox, folders.outbox, folders.state) if not folder.is_dir()]
    told = [f"{folder} does not exist" for folder in missing]
    told += [] if read_daemon_pid(folders.lock) else ["The daemon is not running."]
    command = f"musedrop doctor {place.option}"
    return Step("check", not told, tuple(told or ["Files that are dropped here become videos."]), (command,))


def find_example() -> tuple[Path, Path] | None:
    """Return the face and the voice of the demo clip, None where this installation has none."""
    for folder in EXAMPLES:
        face, voice = folder / "hello.jpg", folder / "hello.wav"
        if face.is_file() and voice.is_file():
            return face, voice
    return None
