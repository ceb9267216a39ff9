"""Small ready-made things that the tests of the daemon share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.jobs.parse import parse_job
from agent.jobs.spec import JobSpec
from agent.jobs.states import JobState
from agent.ledger.job import Job, JobError, assignments
from agent.ledger.ledger import Ledger
from models.types import Request

ERROR = JobError("no_face", "no face was found", "choose another picture")


def a_spec(**keys: object) -> JobSpec:
    return parse_job(json.dumps({"avatar": "face.jpg", "audio": "voice.wav", **keys}).encode())


def a_ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state" / "jobs.db")


def add_job(
    ledger: Ledger,
    uid: str,
    *,
    state: JobState = JobState.QUEUED,
    at_ms: int = 1000,
    media: dict[str, Any] | None = None,
    **keys: Any,
) -> Job:
    """Add a job and take it to the state by the moves that a daemon makes."""
    moves, submitter = ledger.transitions, keys.get("submitter") or ""
    with ledger.together():
        job = moves.add(uid, keys.pop("name", uid), a_spec(**keys), at_ms=at_ms, submitter=submitter)
        if state not in (JobState.WAITING, JobState.FAILED, JobState.CANCELLED):
            job = moves.queue(job, media or {}, at_ms=at_ms)
        if state in (JobState.RUNNING, JobState.DONE):
            job = start_job(ledger, job, f"token-{uid}", at_ms=at_ms)
        match state:
            case JobState.DONE:
                job = moves.finish(job, job.name, at_ms=at_ms)
            case JobState.FAILED:
                job = moves.fail(job, ERROR, at_ms=at_ms)
            case JobState.CANCELLED:
                job = moves.cancel(job, at_ms=at_ms)
    return job


def a_request(folder: Path, *, work: str = "work", out: str = "out") -> Request:
    """What a worker is asked for, with all folders below one."""
    cache, models = str(folder / "cache"), str(folder / "models")
    return Request("preview", "face.jpg", "voice.wav", str(folder / work), str(folder / out), cache, models)


def start_job(ledger: Ledger, job: Job, token: str, *, at_ms: int, stage: str = "inspect") -> Job:
    return ledger.transitions.start(job, token, stage=stage, engine="preview", engine_reason="a test", at_ms=at_ms)


def read_job(ledger: Ledger, uid: str) -> Job:
    job = ledger.job(uid)
    assert job is not None
    return job


def set_columns(ledger: Ledger, uid: str, **columns: Any) -> None:
    """Write columns past the transitions, as an earlier release or a crash may have left them."""
    sets, values = assignments(columns)
    ledger.db.execute(f"UPDATE jobs SET {sets} WHERE uid = ?", [*values, uid])  # noqa: S608 - columns of the test
