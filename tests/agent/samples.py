"""Small ready-made things that tests of the daemon's rooms share."""

from __future__ import annotations

import json
from pathlib import Path

from agent.jobs.parse import parse_job
from agent.jobs.spec import JobSpec
from agent.jobs.states import JobState
from agent.ledger.ledger import Job, Ledger


def a_spec(**keys: object) -> JobSpec:
    return parse_job(json.dumps({"avatar": "face.jpg", "audio": "voice.wav", **keys}).encode())


def a_ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state" / "jobs.db")


def add_job(ledger: Ledger, uid: str, *, state: JobState = JobState.QUEUED, at: int = 1000, **keys: object) -> Job:
    ledger.add(uid, str(keys.pop("name", uid)), a_spec(**keys), state=state, at=at)
    ledger.update(uid, submitter=str(keys.get("submitter", "")))
    job = ledger.job(uid)
    assert job is not None
    return job
