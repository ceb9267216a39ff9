"""Files follow their rows: inputs into archive/ and failed/, media out of the inbox."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest

from agent.fs import move_into, take_fingerprint
from agent.results import outbox
from agent.results.archive import BATCH
from tests.agent.results.desk import Desk
from tests.agent.samples import ERROR
from tests.odd_entries import dropping_powers

DAY_S = timedelta(days=1).total_seconds()


def test_inputs_are_filed_away_once(desk: Desk) -> None:
    """Cut off between the rename and its record, archiving doesn't make a second folder."""
    desk.start()
    desk.clock.now = DAY_S
    desk.finish()
    desk.archiver.archive_inputs()
    [archived] = desk.folders.archive.glob("*/*")
    assert archived.parent.name == "1970-01-02"
    desk.ledger.update("u1", tidied=0)
    desk.archiver.archive_inputs()
    assert list(desk.folders.archive.glob("*/*")) == [archived]


@pytest.mark.parametrize("how", ["fail", "cancel"])
def test_inputs_of_a_job_that_is_not_done_go_to_failed(desk: Desk, how: str) -> None:
    """With the job file and the error beside them; the work folder goes."""
    job = desk.start().job
    (desk.folders.work / "u1").mkdir()
    if how == "fail":
        desk.ledger.transitions.fail(job, ERROR, at_ms=2)
    else:
        desk.ledger.transitions.cancel(job, at_ms=2)
    assert desk.archiver.archive_inputs() is False
    error = json.loads((desk.folders.failed / "hello" / "error.json").read_text())
    assert error["code"] == {"fail": "no_face", "cancel": "cancelled"}[how]
    assert (desk.folders.failed / "hello" / "job.json").read_text() == "{}"
    assert desk.job().inputs == str(desk.folders.failed / "hello")
    assert not (desk.folders.work / "u1").exists()


def test_many_jobs_take_many_turns(desk: Desk) -> None:
    """A batch at a time, so that a flood of ends keeps no worker waiting."""
    for n in range(BATCH + 1):
        desk.ledger.transitions.cancel(desk.start(f"u{n}").job, at_ms=2)
    assert desk.archiver.archive_inputs() is True
    assert desk.archiver.archive_inputs() is False
    assert len(list(desk.folders.failed.iterdir())) == BATCH + 1


def test_several_jobs_that_cannot_be_filed_away_are_each_noted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are moved on several threads; the ledger is written on this one."""
    for uid in ("u1", "u2", "u3"):
        desk.ledger.transitions.cancel(desk.start(uid).job, at_ms=2)
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "move_inputs", refuse)
        assert desk.archiver.archive_inputs() is False
    assert "No space" in desk.problems["archive"]
    rows = desk.ledger.rows("SELECT DISTINCT job_id FROM events WHERE kind = 'problem'")
    assert len(rows) == 3
    desk.archiver.entries.clear(desk.folders.claimed / "u2")
    desk.archiver.archive_inputs()
    assert len(list(desk.folders.failed.iterdir())) == 1


def refuse(_inputs: Path, target: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))


def test_a_share_that_cannot_be_written_is_a_problem(desk: Desk) -> None:
    """The rows stay as they are, and the files follow when it can."""
    desk.ledger.transitions.cancel(desk.start().job, at_ms=2)
    failed = desk.folders.failed
    failed.rmdir()
    failed.write_text("no folder")
    desk.archiver.archive_inputs()
    assert "can't be filed away" in desk.problems["archive"]
    failed.unlink()
    desk.archiver.archive_inputs()
    assert desk.problems["archive"] == ""
    assert len(list(failed.glob("*/error.json"))) == 1


def test_shared_media_stay_while_a_job_needs_them(desk: Desk) -> None:
    """A portrait that two jobs name leaves the inbox only after both are done and some time has passed."""
    face = desk.folders.inbox / "face.jpg"
    face.write_bytes(b"face")
    mark = take_fingerprint(face)
    assert mark is not None
    medium = {"given": "face.jpg", "path": str(face), "inode": mark.inode, "size": mark.size, "mtime_ns": mark.mtime_ns}

    def collect(now_s: float) -> None:
        desk.clock.now = now_s
        desk.archiver.archive_inputs()
        desk.archiver.collect_media()

    for uid in ("u1", "u2"):
        desk.start(uid)
        desk.ledger.update(uid, media={"avatar": medium})
    desk.clock.now = 1.0
    desk.finish("u1")
    collect(60.0)
    assert face.exists(), "u2 is still running"
    desk.clock.now = 70.0
    desk.finish("u2", "hello-2")
    collect(75.0)
    assert face.exists(), "keep_media_s has not passed"
    collect(90.0)
    assert not face.exists()
    [filed] = desk.folders.archive.rglob("face.jpg")
    assert {job.media["avatar"]["path"] for uid in ("u1", "u2") if (job := desk.ledger.job(uid))} == {str(filed)}


def test_media_that_were_replaced_stay(desk: Desk) -> None:
    """A file of the same name that is not the one the job had is for another job."""
    face = desk.folders.inbox / "face.jpg"
    face.write_bytes(b"another face")
    desk.clock.now = 1.0
    desk.start()
    desk.ledger.update(
        "u1", media={"avatar": {"given": "face.jpg", "path": str(face), "inode": 1, "size": 1, "mtime_ns": 1}}
    )
    desk.finish()
    desk.archiver.archive_inputs()
    desk.clock.now = 60.0
    desk.archiver.collect_media()
    assert face.exists()
    assert desk.ledger.list_with_media() == []


def test_media_that_cannot_be_looked_at_are_filed_away_later(desk: Desk) -> None:
    """A share in trouble is no share without them: they would stay in the inbox for good, as what is no job."""
    (folder := desk.folders.inbox / "batch").mkdir()
    (face := folder / "face.jpg").write_bytes(b"face")
    mark = take_fingerprint(face)
    assert mark is not None
    desk.start()
    desk.ledger.update("u1", media={"avatar": {"given": "face.jpg", "path": str(face), **asdict(mark)}})
    desk.clock.now = 1.0
    desk.finish()
    desk.archiver.archive_inputs()
    with dropping_powers():
        for now_s, mode in ((60.0, 0), (1000.0, 0o755)):
            folder.chmod(mode)
            desk.clock.now = now_s
            desk.archiver.collect_media()
            assert bool(desk.archiver.entries.texts) == (mode == 0)
    assert not face.exists()


def test_a_medium_that_takes_the_place_at_that_moment_stays(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The face of the next job is renamed over that of a finished one while that is filed away."""
    face = desk.folders.inbox / "face.jpg"
    face.write_bytes(b"face")
    mark = take_fingerprint(face)
    assert mark is not None
    desk.start()
    desk.ledger.update("u1", media={"avatar": {"given": "face.jpg", "path": str(face), **asdict(mark)}})

    def move_late(source: Path, folder: Path, name: str) -> Path:
        beside = source.with_name(".next.tmp")
        beside.write_bytes(b"the next face")
        beside.rename(source)
        return move_into(source, folder, name)

    desk.clock.now = 1.0
    desk.finish()
    desk.archiver.archive_inputs()
    monkeypatch.setattr("agent.results.archive.move_into", move_late)
    desk.clock.now = 60.0
    desk.archiver.collect_media()
    assert face.read_bytes() == b"the next face"
    assert desk.ledger.list_with_media() == []


def test_media_that_can_not_be_moved_keep_no_others_in_the_inbox(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than one turn handles are at the head; each has its problem, and the others leave."""
    move, stuck = move_into, set[Path]()

    def refuse_stuck(source: Path, folder: Path, name: str) -> Path:
        if source in stuck:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source))
        return move(source, folder, name)

    monkeypatch.setattr("agent.results.archive.move_into", refuse_stuck)
    desk.clock.now = 1.0
    for number in range(BATCH + 1):
        path = desk.folders.inbox / f"{number}.jpg"
        path.write_bytes(b"face")
        mark = take_fingerprint(path)
        assert mark is not None
        desk.start(f"u{number}")
        desk.ledger.update(f"u{number}", media={"avatar": {"given": path.name, "path": str(path), **asdict(mark)}})
        desk.finish(f"u{number}", f"hello-{number}")
        if number < BATCH:
            stuck.add(path)
    while desk.archiver.archive_inputs():
        pass
    desk.clock.now = 60.0
    desk.archiver.collect_media()
    desk.archiver.collect_media()
    assert [path.name for path in desk.folders.inbox.iterdir() if path not in stuck] == []
    assert desk.archiver.entries.count == BATCH
