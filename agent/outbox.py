"""The ways out: published results, failed jobs, the archive and status.json. Every rename that a user sees is here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.filesystem import safe_name, sync_file, sync_folder, write_whole

RESULT_FILES = ("result.mp4", "result.json", "preview.jpg")


def free_name(folder: Path, name: str, taken: Iterable[str] = ()) -> str:
    """`name` made safe, or `name-2`, `name-3` ..., such that neither `folder` nor `taken` holds it.

    Compared without regard to case: the folder is read from Windows and macOS too.
    """
    base = safe_name(name)
    present = {path.name.casefold() for path in folder.iterdir()} if folder.is_dir() else set()
    present |= {other.casefold() for other in taken}
    candidates = (base if n == 1 else f"{base}-{n}" for n in range(1, 1_000_000))
    return next(candidate for candidate in candidates if candidate.casefold() not in present)


def publish(staging: Path, outbox: Path, name: str, record: dict[str, Any]) -> None:
    """Make a verified result visible, whole and at once. `record` becomes result.json."""
    write_json(staging / "result.json", record)
    missing = [file for file in RESULT_FILES if not (staging / file).is_file()]
    if missing:
        raise FileNotFoundError(f"{staging.name} lacks {', '.join(missing)}")
    sync_folder(staging)
    staging.rename(outbox / name)
    sync_folder(outbox)


def intact(folder: Path, uid: str, video_bytes: int) -> bool:
    """Whether the folder still holds the result of that job, with a video of that size."""
    try:
        size = (folder / "result.mp4").stat(follow_symlinks=False).st_size
    except OSError:
        return False
    return size == video_bytes and published(folder.parent, folder.name, uid) and (folder / "preview.jpg").is_file()


def copy_result(source: Path, staging: Path) -> None:
    """The video and its preview once more: as links, or as copies where the file system has none."""
    discard(staging)
    staging.mkdir()
    for file in ("result.mp4", "preview.jpg"):
        try:
            (staging / file).hardlink_to(source / file)
        except OSError:
            shutil.copyfile(source / file, staging / file)
            sync_file(staging / file)


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
        write_whole(inputs / "job.json", job_file.encode("utf-8", "replace"))
    write_json(inputs / "error.json", error)
    put_away(inputs, target)


def put_away(inputs: Path, target: Path) -> None:
    """Rename the inputs of a finished job to their last place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    inputs.rename(target)
    sync_folder(target.parent)


def bring_back(inputs: Path, claimed: Path) -> None:
    """Undo `fail` for a job that is tried again: its inputs return, its error goes."""
    claimed.parent.mkdir(parents=True, exist_ok=True)
    (inputs / "error.json").unlink(missing_ok=True)
    inputs.rename(claimed)
    sync_folder(claimed.parent)


def discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, data: dict[str, Any], *, durable: bool = True) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=2, default=str) + "\n"
    write_whole(path, text.encode("utf-8", "replace"), durable=durable)


def iso(at_ms: int | None) -> str | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds") if at_ms is not None else None
