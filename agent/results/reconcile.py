"""A ledger that is older than its share, after a backup was restored: what the share says has ended has ended.

The ledger and the share hold the same mark. The one on the share changes before anything is published or filed away,
the one in the ledger with the rows of that. Where the two differ, results and failed jobs on the share are read, once.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.clock import Clock
from agent.errors import ErrorCode
from agent.fs import is_file, map_parallel, overwrite, read_limited
from agent.jobs.spec import JobSpec
from agent.jobs.states import LIVE, JobState
from agent.ledger.job import Job, JobError
from agent.ledger.ledger import Ledger
from agent.results.outbox import list_batches, list_folders
from agent.results.video_file import find_video
from agent.settings import Folders
from models.types import Inspection

log = logging.getLogger("musedrop")

KEY = "share_mark"
MAX_RECORD_BYTES, MAX_FRAMES = 1 << 20, 1 << 40
LATEST_S = 253_370_764_800
"""The year 9999."""
UID = re.compile(r"[0-9a-f]{16}")
NOT_FACTS = {
    *(
        "version",
        "name",
        "result",
        "uid",
        "id",
        "state",
        "video",
        "preview",
        "engine",
        "engine_reason",
        "frames",
        "fps",
    ),
    *("width", "height", "duration_s", "encoder", "avatar", "audio", "options", "asked", "attempt", "interruptions"),
    *("created_at", "started_at", "finished_at"),
}
"""Keys of result.json that have columns of their own, or belong to the inspection."""
OPEN_TO = {
    JobState.DONE: {*LIVE, JobState.FAILED, JobState.CANCELLED},
    JobState.FAILED: set(LIVE),
    JobState.CANCELLED: set(LIVE),
}
"""The states of a row that an end on the share is newer than."""
GONE = JobError(
    ErrorCode.INPUTS_GONE,
    "it ended after the copy of the ledger that is in use now was made, and its result is no longer in the outbox",
    ErrorCode.INPUTS_GONE.hint,
)


class ShareMark:
    """A random word that the ledger and the share hold both."""

    def __init__(self, folders: Folders, ledger: Ledger) -> None:
        self._path, self._ledger = folders.ledger_mark, ledger

    def is_equal(self) -> bool:
        """Whether both are of one time."""
        known = self._ledger.recall(KEY)
        return known is not None and known.encode() == read_limited(self._path, 64)

    def change(self) -> str:
        """Change the mark on the share, before anything else changes there; return it. Raises OSError.

        It is not flushed: a power cut leaves the ledger's rows, so that only an old backup could need it.
        """
        mark = secrets.token_hex(8)
        overwrite(self._path, mark.encode())
        return mark

    def record(self, mark: str) -> None:
        """Take the mark over, in the transaction of the rows that say what has changed."""
        self._ledger.remember(KEY, mark)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the share says of a job that has ended: its folder in outbox or failed, and columns of its row."""

    uid: str
    state: JobState
    folder: Path
    finished_ms: int
    columns: Mapping[str, Any]


def reconcile(folders: Folders, ledger: Ledger, clock: Clock) -> bool:
    """Write into the ledger what has ended on the share, if the ledger may be older; return whether it may.

    Raises OSError.
    """
    mark = ShareMark(folders, ledger)
    if mark.is_equal():
        return False
    read = partial(read_result, outbox=folders.outbox)
    outcomes = read_outcomes(folders.outbox, read, in_batches=True) + read_outcomes(folders.failed, read_failure)
    changed = mark.change()
    with ledger.together():
        count = sum(record_outcome(ledger, outcome) for outcome in outcomes)
        count += close_without_inputs(ledger, folders, clock.at_ms())
        mark.record(changed)
    if count:
        log.warning("the ledger was older than the share: %d jobs that had ended since are in it now", count)
    return True


# what the share says --------------------------------------------------------------------------------------------------


def read_outcomes(folder: Path, read: Callable[[Path], Outcome | None], *, in_batches: bool = False) -> list[Outcome]:
    """Return the outcomes below outbox or failed, oldest first; other people's folders have none.

    `in_batches`: also those one folder deeper.
    """
    folders = list_folders(folder)
    found = list(map_parallel(read, folders))
    if in_batches:
        others = [path for path, outcome in zip(folders, found, strict=True) if outcome is None]
        found += map_parallel(read, [inner for batch in list_batches(others) for inner in batch])
    return sorted(filter(None, found), key=lambda outcome: outcome.finished_ms)


def read_result(folder: Path, outbox: Path) -> Outcome | None:
    """Return what a folder of the outbox says; None if it is no result of ours."""
    record = read_record(folder / "result.json")
    if record is None or not is_file(find_video(folder)):
        return None
    try:
        if not all(type(record[key]) in (int, float) for key in ("frames", "duration_s")):
            return None
        spec = make_spec(record)
        columns = {
            "name": str(record["name"]),
            "client_id": spec.id if spec else None,
            "spec": spec,
            "engine": str(record["engine"]),
            "engine_reason": str(record["engine_reason"]),
            "outline": make_outline(record),
            "frames": min(int(record["frames"]), MAX_FRAMES),
            "duration_s": float(record["duration_s"]),
            "facts": {key: value for key, value in record.items() if key not in NOT_FACTS},
            "result": str(folder.relative_to(outbox)),
            "created_ms": read_time(record["created_at"]),
            "started_ms": read_time(record["started_at"] or record["created_at"]),
        }
        return Outcome(record["uid"], JobState.DONE, folder, read_time(record["finished_at"]), columns)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def read_failure(folder: Path) -> Outcome | None:
    """Return what failed/NAME says; None if it is no failed job of ours."""
    record = read_record(folder / "error.json")
    try:
        if record is None or record["state"] not in (JobState.FAILED, JobState.CANCELLED):
            return None
        error = JobError(str(record["code"]), str(record["message"]), str(record["hint"]), bool(record["retry"]))
        columns = {"name": str(record["name"]), "client_id": record["id"] and str(record["id"])}
        columns |= {"created_ms": read_time(record["created_at"]), "inputs": str(folder)}
        columns |= error.columns() if record["state"] == JobState.FAILED else {}
        return Outcome(record["uid"], JobState(record["state"]), folder, read_time(record["finished_at"]), columns)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a record that names a uid of ours, None for anything else: users can write there."""
    try:
        record = json.loads(read_limited(path, MAX_RECORD_BYTES) or b"")
        # neither half a surrogate nor NaN is anything for the ledger
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
        return record if UID.fullmatch(record["uid"]) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_time(text: str) -> int:
    """Return ISO 8601 as milliseconds since 1970. Raises ValueError for a time that no calendar of UTC has."""
    at = datetime.fromisoformat(text).timestamp()
    if not 0 <= at < LATEST_S:
        raise ValueError(f"{text} is no time of a job")
    return round(at * 1000)


def make_spec(record: dict[str, Any]) -> JobSpec | None:
    """Return what the job asked for, as far as it decides the video; None for results that don't say all of it."""
    has_more = any(record.get(key) for key in ("voices", "soundtrack", "background"))
    if "asked" not in record or has_more or record.get("painted", [[0, record["frames"]]]) != [[0, record["frames"]]]:
        return None
    asked = {**record["asked"], "avatar": record["avatar"]["given"], "audio": record["audio"]["given"]}
    asked |= {"options": record["options"], "id": record["id"]}
    try:
        return JobSpec.model_validate_json(json.dumps(asked))
    except ValidationError:
        return None


def make_outline(record: dict[str, Any]) -> dict[str, Any]:
    found = {key: record[key] for key in ("frames", "fps", "width", "height", "duration_s", "encoder")}
    sums = {f"{role}_sha256": record[role]["sha256"] for role in ("avatar", "audio")}
    return Inspection(**found, **sums, units={}).to_dict()


# what the ledger did not know -----------------------------------------------------------------------------------------


def record_outcome(ledger: Ledger, outcome: Outcome) -> bool:
    """Write the end of a job into its row, or a row for it; False where the ledger knows it."""
    job = ledger.job(outcome.uid)
    if job is not None and not is_news(outcome, job):
        return False
    columns = dict(outcome.columns)
    is_filed = outcome.state is not JobState.DONE
    columns |= {"tidied": int(is_filed), "swept": int(is_filed and not (job and job.media))}
    ledger.transitions.record_outcome(outcome.uid, outcome.state, columns, at_ms=outcome.finished_ms)
    return True


def is_news(outcome: Outcome, job: Job) -> bool:
    """Whether the row is older than the end: a failed job may have been tried again since, a done one may not."""
    is_later = outcome.state is JobState.DONE or outcome.finished_ms >= job.since_ms
    return is_later and job.state in OPEN_TO[outcome.state]


def close_without_inputs(ledger: Ledger, folders: Folders, at_ms: int) -> int:
    """Fail the unfinished jobs whose claimed files were filed away; they have ended, though their result is gone."""
    jobs = [job for job in ledger.list_in_state(*LIVE) if not ledger.has_ended_before(job)]
    gone = [job for job in jobs if not has_entry(folders.claimed / job.uid)]
    for job in gone:
        ledger.transitions.fail(job, GONE, at_ms=at_ms)
    return len(gone)


def has_entry(path: Path) -> bool:
    """Whether there is such a file or folder. Raises OSError where that can't be found out."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True
