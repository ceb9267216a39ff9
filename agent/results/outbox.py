"""The ways out: published results, failed jobs, the archive and status.json. Every rename that a user sees is here."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.fs import atomic_write, discard, make_safe_name, sync

LISTED_S = 5.0
RESULT_FILES = ("result.mp4", "result.json", "preview.jpg")


class Names:
    """Names for new folders, told from those that are there without regard to case: Windows reads them too.

    A listing is kept for `LISTED_S`, since a folder of ten thousand results is not read for each new one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listings: dict[Path, tuple[float, set[str]]] = {}

    def free(self, folder: Path, name: str) -> str:
        """`name` made safe, or `name-2`, `name-3` ..., whichever is free; it counts as taken from now on."""
        base, present = make_safe_name(name), self._present(folder)
        candidates = (base if n == 1 else f"{base}-{n}" for n in range(1, 1_000_000))
        chosen = next(one for one in candidates if one.casefold() not in present and not os.path.lexists(folder / one))
        present.add(chosen.casefold())
        return chosen

    def forget(self, folder: Path) -> None:
        """Look at the folder anew: a name was not taken after all."""
        self._listings.pop(folder, None)

    def _present(self, folder: Path) -> set[str]:
        listed_at, present = self._listings.get(folder, (-math.inf, set[str]()))
        if self._clock() - listed_at >= LISTED_S:
            present = {path.name.casefold() for path in folder.iterdir()} if folder.is_dir() else set()
            self._listings[folder] = (self._clock(), present)
        return present


def publish(staging: Path, outbox: Path, name: str, record: dict[str, Any]) -> None:
    """Make a verified result visible, whole and at once. `record` becomes result.json.

    The caller syncs `outbox`, once for all that it publishes.
    """
    write_json(staging / "result.json", record)
    missing = [file for file in RESULT_FILES if not (staging / file).is_file()]
    if missing:
        raise FileNotFoundError(f"{staging.name} lacks {', '.join(missing)}")
    staging.rename(outbox / name)


def intact(folder: Path, uid: str, video_bytes: int) -> bool:
    """Whether the folder still holds the result of that job, with a video of that size."""
    same = size_of(folder / "result.mp4") == video_bytes
    return same and published(folder.parent, folder.name, uid) and (folder / "preview.jpg").is_file()


def size_of(path: Path) -> int:
    """In bytes, -1 where there is no such file."""
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return -1


def copy_result(source: Path, staging: Path) -> None:
    """The video and its preview once more: as links, or as copies where the file system has none."""
    discard(staging)
    staging.mkdir()
    for file in ("result.mp4", "preview.jpg"):
        try:
            (staging / file).hardlink_to(source / file)
        except OSError:
            shutil.copyfile(source / file, staging / file)
            sync(staging / file)


def published(outbox: Path, name: str, uid: str) -> bool:
    """Whether outbox/name is the result of that job."""
    try:
        record = json.loads((outbox / name / "result.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("uid") == uid


def fail(inputs: Path, target: Path, error: dict[str, Any], job_file: str) -> None:
    """Make failed/NAME (`target`) of the inputs of a job, with job.json and error.json in it."""
    inputs.mkdir(parents=True, exist_ok=True)
    for path in inputs.glob("*.[jJ][sS][oO][nN]"):
        if path.name not in ("job.json", "error.json"):
            path.rename(inputs / "job.json")
    if not (inputs / "job.json").exists():
        atomic_write(inputs / "job.json", job_file.encode("utf-8", "replace"))
    write_json(inputs / "error.json", error)
    put_away(inputs, target)


def put_away(inputs: Path, target: Path) -> None:
    """Rename the inputs of a finished job to their last place; the caller syncs that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    inputs.rename(target)


def bring_back(inputs: Path, claimed: Path) -> None:
    """Undo `fail` for a job that is tried again: its inputs return, its error goes."""
    claimed.parent.mkdir(parents=True, exist_ok=True)
    (inputs / "error.json").unlink(missing_ok=True)
    inputs.rename(claimed)
    sync(claimed.parent)


def write_json(path: Path, data: dict[str, Any], *, durable: bool = True) -> None:
    """On one line where it isn't kept, as it is written often."""
    text = json.dumps(data, ensure_ascii=False, indent=2 if durable else None, default=str) + "\n"
    atomic_write(path, text.encode("utf-8", "replace"), durable=durable)


def iso(at_ms: int | None) -> str | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds") if at_ms is not None else None
