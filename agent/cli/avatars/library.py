"""The avatar library: `musedrop avatar` or a person with a file manager adds and removes files.

An avatar is a file avatars/NAME.jpg, .mp4 ... of the share. The cache holds what engines have
prepared for it; about.json in each entry names the SHA-256 of the avatar.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import client
from agent.client import ClientError, JobTicket
from agent.fs import atomic_copy, hash_file
from agent.fs.folders import remove, sync
from agent.jobs.spec import AVATAR_SUFFIXES, TRIAL, VIDEO_SUFFIXES, is_library_name
from agent.ledger.queue import QueueRows
from agent.library import list_library, name_avatar
from agent.settings import Settings
from gpu_pool.process import build_python_path
from models import catalog

ABOUT = "about.json"
TRIAL_S = 0.4
"""Length of the silent clip for `submit_preparation`: enough to see which face is tracked."""


@dataclass(frozen=True, slots=True)
class Avatar:
    """An entry of the library, and what is prepared for it ("musetalk v15, jaw, 250 frames")."""

    name: str
    path: Path
    prepared: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        if self.path.is_dir():
            return "pictures"
        return "video" if self.path.suffix.lower() in VIDEO_SUFFIXES else "image"


def add_avatar(settings: Settings, name: str, file: Path, *, replace: bool = False, fps: str = "25") -> Path:
    """Copy `file` into the library as `name`, atomically. Raises ClientError.

    Of a folder of numbered pictures it is a video without loss, of `fps` frames a second.
    """
    check_name(name)
    if file.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            video = Path(scratch) / f"{name}.mkv"
            join_pictures(file, video, fps)
            return add_avatar(settings, name, video, replace=replace)
    suffix = file.suffix.lower()
    if suffix not in AVATAR_SUFFIXES:
        suffixes = " ".join(sorted(AVATAR_SUFFIXES))
        raise ClientError(f"{file.name} can't be an avatar: its suffix is not one of {suffixes}")
    if not file.is_file():
        raise ClientError(f"there is no file {file}")
    folder = settings.folders.avatars
    if not folder.is_dir():
        raise ClientError(f"there is no library at {folder}: run `musedrop init` first, or give another settings file")
    before = find_files(folder, name)
    if before and not replace:
        raise ClientError(f"the library has {before[0].name} already: choose another name, or use --replace")
    target = folder / f"{name}{suffix}"
    atomic_copy(file, target)
    for other in before:
        if other != target:
            remove(other)
    return target


def join_pictures(folder: Path, video: Path, fps: str) -> None:
    """Write the numbered pictures of a folder as one video. Raises ClientError; the program has said why."""
    program = [sys.executable, "-P", "-m", "models.media.numbered", str(folder), str(video), fps]
    env = {**os.environ, "PYTHONPATH": build_python_path(os.environ)}
    if os.spawnve(os.P_WAIT, sys.executable, program, env):  # noqa: S606  our own interpreter and module
        raise ClientError(f"the pictures in {folder} were not made into an avatar")


def list_avatars(settings: Settings) -> list[Avatar]:
    """Return all avatars by name, with what the cache holds for each."""
    prepared = dict(read_prepared(settings.folders.cache))
    return [
        Avatar(
            name_avatar(path),
            path,
            tuple(sorted(prepared.get(hash_or_empty(path), ())) if prepared else ()),
        )
        for path in list_library(settings.folders.avatars)
    ]


def remove_avatar(settings: Settings, name: str, *, force: bool = False) -> list[Path]:
    """Remove an avatar from the library; its cache entries are evicted when space is needed.

    Raises ClientError if there is no such avatar, or if jobs that have not been started need it.
    """
    check_name(name)
    files = find_files(settings.folders.avatars, name)
    if not files:
        raise ClientError(f"the library has no avatar {name}; `musedrop avatar list` shows them")
    waiting = [] if force else find_unstarted_jobs(settings, name)
    if waiting:
        raise ClientError(
            f"{len(waiting)} unstarted jobs need {name}, {waiting[0]} first: let them run, or use --force"
        )
    for path in files:
        remove(path)
    sync(settings.folders.avatars)
    return files


def submit_preparation(
    settings: Settings, name: str, options: dict[str, Any], engine: str = "", *, keeps_video: bool = False
) -> JobTicket:
    """Submit a job with a silent clip, which prepares the avatar and shows the tracked face.

    `keeps_video`: else the daemon takes the video out of the outbox.
    `engine`: "" for MuseTalk where it is installed with its weights, else what auto is here.
    """
    check_name(name)
    if not find_files(settings.folders.avatars, name):
        raise ClientError(f"the library has no avatar {name}: add it with `musedrop avatar add {name} FILE`")
    musetalk, places = catalog.ENGINES["musetalk"], settings.models_dir
    engine = engine or ("auto" if catalog.explain_unavailable(musetalk, places, ("cpu", "cuda")) else "musetalk")
    if engine == "musetalk":  # else a silent clip would show nothing but the avatar itself
        options = {"silence": "model", **options}
    job: dict[str, Any] = {"engine": engine, "priority": "low", "strategy": "queue", "options": options}
    job |= {} if keeps_video else {"submitter": TRIAL}
    with tempfile.TemporaryDirectory() as folder:
        silence = Path(folder) / "silence.wav"
        silence.write_bytes(client.make_silence(TRIAL_S))
        return client.submit(settings, name, silence, job, f"prepare-{name}")


def check_name(name: str) -> None:
    if not is_library_name(name):
        raise ClientError(f'"{name}" can\'t name an avatar: no slash, no leading dot, no file suffix')


def find_files(folder: Path, name: str) -> list[Path]:
    return [path for path in list_library(folder) if name_avatar(path) == name]


def read_prepared(cache: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the SHA-256 of each avatar in the cache with what is prepared for it."""
    found: dict[str, list[str]] = {}
    for about in cache.glob(f"*/{ABOUT}") if cache.is_dir() else ():
        try:
            record = json.loads(about.read_bytes())
            found.setdefault(str(record["avatar_sha256"]), []).append(str(record["summary"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    yield from found.items()


def hash_or_empty(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError:
        return ""


def find_unstarted_jobs(settings: Settings, name: str) -> list[str]:
    """Return the names of the jobs that use this avatar and have not been started."""
    if not settings.folders.ledger.exists():
        return []
    return QueueRows(client.open_ledger(settings)).list_unstarted_with(name)
