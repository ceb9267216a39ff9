"""Clips of a photo, made ahead by ordinary jobs: a seed or several, of which one is kept in the library."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import client
from agent.cli.avatars.library import TRIAL_S, check_name, find_files
from agent.client import ClientError, JobTicket
from agent.jobs.spec import VIDEO_SUFFIXES
from agent.results.video_file import CLIP_NAME
from agent.settings import Settings
from gpu_pool.process import build_python_path

MOST_SEEDS = 16
SEEDS = re.compile(r"(\d{1,10})(?:\.\.(\d{1,10}))?")


@dataclass(frozen=True, slots=True)
class Wish:
    """A photo of the library, the seeds of its clips, and the name that the one that is kept gets."""

    name: str
    seeds: tuple[int, ...]
    target: str


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a text, without those that come again. Raises ClientError.

    >>> parse_seeds("1..3,7,2")
    (1, 2, 3, 7)
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = SEEDS.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < first + MOST_SEEDS:
            raise ClientError(f'--seed takes a number, or some as 1..4 or 1,5,9, not "{text}"')
        seeds |= dict.fromkeys(range(first, last + 1))
    if len(seeds) > MOST_SEEDS:
        raise ClientError(f"{len(seeds)} seeds were given; at most {MOST_SEEDS} are made side by side")
    return tuple(seeds)


def make_wish(settings: Settings, name: str, seed: str, keep: int | None, target: str, *, replace: bool) -> Wish:
    """Return what is to be made, once it is known that the result can be kept. Raises ClientError.

    A clip that is known to be kept is made alone: it is in the cache where others were made before.
    """
    seeds = parse_seeds(seed)
    if keep is not None and keep not in seeds:
        raise ClientError(f"--keep {keep} is none of the seeds {seed}")
    check_name(target)
    if target == name:
        raise ClientError("the clip needs another name than its photo, which other clips are made of: give --as NAME")
    photos = find_files(settings.folders.avatars, name)
    if not photos:
        raise ClientError(f"the library has no avatar {name}: add it with `musedrop avatar add {name} FILE`")
    if photos[0].is_dir() or photos[0].suffix.lower() in VIDEO_SUFFIXES:
        raise ClientError(f"{photos[0].name} moves already: a clip is made of a photo")
    if find_files(settings.folders.avatars, target) and not replace:
        raise ClientError(f"the library has {target} already: choose another name by --as, or use --replace")
    return Wish(name, (keep,) if keep is not None else seeds, target)


def submit_clips(settings: Settings, wish: Wish, motion: Mapping[str, Any]) -> dict[int, JobTicket]:
    """Submit a job for each seed, with a short silent sound; its result has the clip. Raises ClientError."""
    tickets = {}
    with tempfile.TemporaryDirectory() as folder:
        silence = Path(folder) / "silence.wav"
        silence.write_bytes(client.make_silence(TRIAL_S))
        for seed in wish.seeds:
            job = {"engine": "preview", "motion": {**motion, "seed": seed, "clip": True}}
            tickets[seed] = client.submit(settings, wish.name, silence, job, f"animate-{wish.name}-{seed}")
    return tickets


def find_clips(settings: Settings, rows: Mapping[int, Mapping[str, Any]]) -> dict[int, Path]:
    """Return the clips of the jobs that are done, by their seeds; `rows` are those of `job_status`."""
    done = {seed: str(row["result"]) for seed, row in rows.items() if row["state"] == "done"}
    return {seed: settings.folders.outbox / result / CLIP_NAME for seed, result in done.items()}


def draw_clips(clips: Mapping[int, Path], sheet: Path) -> None:
    """Write a contact sheet with a row for each clip. Raises ClientError; the program has said why."""
    program = [sys.executable, "-P", "-m", "models.motion.sheet", str(sheet)]
    program += [part for seed, clip in clips.items() for part in (f"seed {seed}", str(clip))]
    env = {**os.environ, "PYTHONPATH": build_python_path(os.environ)}
    if os.spawnve(os.P_WAIT, sys.executable, program, env):  # noqa: S606  our own interpreter and module
        raise ClientError(f"{sheet} was not drawn")
