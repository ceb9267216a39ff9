"""The avatar library: what `musedrop avatar` does, and what a person with a file manager could do as well.

An avatar is a file avatars/NAME.jpg, .mp4 ... of the share. What engines have prepared of it lies in the cache by the
content of the file; each entry says in about.json what it is of.
"""

from __future__ import annotations

import json
import tempfile
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.cli import client
from agent.cli.client import ClientError, Ticket
from agent.fs import atomic_copy, hash_file, sync
from agent.jobs.spec import AVATAR_SUFFIXES, VIDEO_SUFFIXES, is_library_name
from agent.settings import Settings

ABOUT = "about.json"
TRIAL_S = 0.4
"""Length of the silent clip that `prepare` has rendered: enough to see where the face is taken to be."""


@dataclass(frozen=True, slots=True)
class Avatar:
    """A file of the library, and what is prepared of it: sentences like "musetalk v15, jaw, 250 frames"."""

    name: str
    path: Path
    prepared: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return "video" if self.path.suffix.lower() in VIDEO_SUFFIXES else "image"


def add(settings: Settings, name: str, file: Path, *, replace: bool = False) -> Path:
    """Copy `file` into the library as `name`; it appears whole. Raises ClientError."""
    check_name(name)
    suffix = file.suffix.lower()
    if suffix not in AVATAR_SUFFIXES:
        raise ClientError(f"{file.name} is no avatar: its suffix is not one of {' '.join(sorted(AVATAR_SUFFIXES))}")
    if not file.is_file():
        raise ClientError(f"there is no file {file}")
    folder = settings.folders.avatars
    if not folder.is_dir():
        raise ClientError(f"there is no library at {folder}: run `musedrop init` first, or name another settings file")
    before = files_of(folder, name)
    if before and not replace:
        raise ClientError(f"the library has {before[0].name} already: choose another name, or say --replace")
    target = folder / f"{name}{suffix}"
    atomic_copy(file, target)
    for other in before:
        if other != target:
            other.unlink(missing_ok=True)
    return target


def shelf(settings: Settings) -> list[Avatar]:
    """All avatars by name, with what the cache holds of each."""
    prepared = dict(entries(settings.folders.cache))
    return [
        Avatar(path.stem, path, tuple(sorted(prepared.get(digest(path), ())) if prepared else ()))
        for path in avatars(settings.folders.avatars)
    ]


def remove(settings: Settings, name: str, *, force: bool = False) -> list[Path]:
    """Take an avatar out of the library; the cache drops what is prepared of it when it needs the room.

    Raises ClientError where there is none of that name, or where jobs that have not been started want it.
    """
    check_name(name)
    files = files_of(settings.folders.avatars, name)
    if not files:
        raise ClientError(f"the library has no avatar {name}; `musedrop avatar list` shows them")
    waiting = [] if force else wanting(settings, name)
    if waiting:
        raise ClientError(
            f"{len(waiting)} unstarted jobs want {name}, {waiting[0]} first: let them run, or say --force"
        )
    for path in files:
        path.unlink(missing_ok=True)
    sync(settings.folders.avatars)
    return files


def prepare(settings: Settings, name: str, options: dict[str, Any], engine: str = "musetalk") -> Ticket:
    """Drop a job that needs the avatar prepared: a silent clip, whose video shows where the face is taken to be."""
    check_name(name)
    if not files_of(settings.folders.avatars, name):
        raise ClientError(f"the library has no avatar {name}: add it with `musedrop avatar add {name} FILE`")
    job = {"engine": engine, "priority": "low", "strategy": "queue", "options": options}
    with tempfile.TemporaryDirectory() as folder:
        silence = Path(folder) / "silence.wav"
        write_silence(silence, TRIAL_S)
        return client.submit(settings, name, silence, job, f"prepare-{name}")


def write_silence(path: Path, seconds: float, rate: int = 16_000) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", ""))
        sound.writeframes(bytes(2 * round(seconds * rate)))


def check_name(name: str) -> None:
    if not is_library_name(name):
        raise ClientError(f'"{name}" can\'t name an avatar: no slash, no dot in front, no suffix of a file')


def avatars(folder: Path) -> Iterator[Path]:
    """The files that count as avatars, as jobs find them."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in AVATAR_SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


def files_of(folder: Path, name: str) -> list[Path]:
    return [path for path in avatars(folder) if path.stem == name]


def entries(cache: Path) -> Iterator[tuple[str, list[str]]]:
    """SHA-256 of an avatar -> what is prepared of it."""
    found: dict[str, list[str]] = {}
    for about in cache.glob(f"*/{ABOUT}") if cache.is_dir() else ():
        try:
            said = json.loads(about.read_bytes())
            found.setdefault(str(said["avatar_sha256"]), []).append(str(said["summary"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    yield from found.items()


def digest(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError:
        return ""


def wanting(settings: Settings, name: str) -> list[str]:
    """Names of the jobs that have not been started and ask for this avatar of the library."""
    if not settings.folders.ledger.exists():
        return []
    sql = (
        "SELECT name FROM jobs WHERE state IN ('waiting', 'queued') AND "
        "coalesce(json_extract(spec, '$.template'), json_extract(spec, '$.avatar')) = ? ORDER BY id"
    )
    return [str(row["name"]) for row in client.rows(client.reader(settings), sql, [name])]
