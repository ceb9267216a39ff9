"""Drafts are deleted soon after their end, with all that is theirs and nothing else."""

from __future__ import annotations

import json

from agent.clock import Clock
from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from agent.results.drafts import KEEP_S, Drafts
from agent.settings import Settings
from tests.agent.samples import add_job


def add_draft(settings: Settings, ledger: Ledger, uid: str, state: JobState, at_ms: int) -> None:
    add_job(ledger, uid, state=state, name=uid, at_ms=at_ms)
    ledger.retention.note_draft(uid)
    folders = settings.folders
    result, inputs = folders.outbox / uid, (folders.failed if state is JobState.FAILED else folders.archive) / uid
    for folder in (result, inputs):
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"uid": uid}))
        (folder / "result.mp4").write_bytes(b"video")
    ledger.update(uid, inputs=str(inputs), tidied=1, swept=1, result=uid if state is JobState.DONE else None)


def test_a_draft_leaves_nothing(settings: Settings) -> None:
    """Row, result and inputs go when it is time, and so do those of a draft that failed; counts are as before."""
    clock, ledger = Clock(), Ledger(settings.folders.ledger)
    old_ms = clock.at_ms() - round(1000 * KEEP_S) - 60_000
    add_draft(settings, ledger, "old", JobState.DONE, old_ms)
    add_draft(settings, ledger, "bad", JobState.FAILED, old_ms)
    add_draft(settings, ledger, "new", JobState.DONE, clock.at_ms())
    add_job(ledger, "other", state=JobState.DONE, name="other", at_ms=old_ms)
    (settings.folders.outbox / "other").mkdir()
    Drafts(settings.folders, ledger, clock).step()
    assert {row["uid"] for row in ledger.rows("SELECT uid FROM job_status")} == {"new", "other"}
    assert ledger.counts()["done"] == 2
    assert {path.name for path in settings.folders.outbox.iterdir()} == {"bad", "new", "other"}
    assert [path.name for path in settings.folders.archive.iterdir()] == ["new"]
    assert list(settings.folders.failed.iterdir()) == []
    assert ledger.rows("SELECT key FROM meta WHERE key GLOB 'draft:*'") == [{"key": "draft:new"}]
    ledger.close()
