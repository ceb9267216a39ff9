"""A row as the daemon uses it."""

from __future__ import annotations

from pathlib import Path

from agent.fs import Fingerprint
from agent.ledger.job import JobError, assignments, placeholders
from tests.agent.samples import a_ledger, add_job


def test_columns_come_back_as_what_they_were(tmp_path: Path) -> None:
    """JSON as dicts, flags as bools, the spec as a spec; what is missing is None."""
    ledger = a_ledger(tmp_path)
    media = {"avatar": {"given": "face.jpg", "path": "/face.jpg", "inode": 1, "size": 2, "mtime_ns": 3}}
    job = add_job(ledger, "u1", media=media, fps=25, priority="high")
    assert (job.media, job.outline, job.facts, job.stage_seconds) == (media, None, None, {})
    assert (job.cancel_requested, job.error_retry, job.priority) == (False, False, 10)
    assert job.spec is not None
    assert job.spec.fps == "25"
    assert job.fingerprints == {Fingerprint(1, 2, 3)}


def test_values_are_made_for_sqlite() -> None:
    """Columns of JSON become text, NULL stays NULL."""
    assert assignments({"media": {"a": 1}, "outline": None, "stage": "render"}) == (
        "media = ?, outline = ?, stage = ?",
        ['{"a": 1}', None, "render"],
    )
    assert placeholders("abc") == "?, ?, ?"


def test_an_error_fills_its_columns() -> None:
    """All four, so that none of an earlier error is left."""
    columns = JobError("no_face", "no face was found", "choose another picture", retry=True).columns()
    assert columns == {
        "error_code": "no_face",
        "error_message": "no face was found",
        "error_hint": "choose another picture",
        "error_retry": 1,
    }
