"""A ledger that was restored from a backup learns from the share what has ended since."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.jobs.states import JobState
from agent.results.reconcile import make_spec, reconcile
from tests.agent.results.desk import Desk
from tests.agent.test_daemon import Setup


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    made.turn()
    yield made
    made.daemon.pool.close()
    made.daemon.ledger.close()


def back_up(setup: Setup) -> bytes:
    """Return the ledger as `sqlite3 .backup` copies it under a running daemon."""
    copy = setup.root / "backup.db"
    with closing(sqlite3.connect(setup.folders.ledger)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy.read_bytes()


def restore(setup: Setup, backup: bytes) -> None:
    """Stop the daemon, put the backup in the place of its ledger, and start it again."""
    setup.daemon.close()
    for path in setup.folders.state.glob("jobs.db*"):
        path.unlink()
    setup.folders.ledger.write_bytes(backup)
    setup.start()
    for _ in range(20):
        setup.turn(pass_s=1.0)


def results(setup: Setup) -> list[str]:
    return sorted(path.name for path in setup.folders.outbox.iterdir())


def row(setup: Setup, name: str) -> dict[str, Any]:
    [found] = setup.daemon.ledger.rows("SELECT * FROM job_status WHERE name = ?", [name])
    return found


def drop(setup: Setup, name: str, **keys: Any) -> None:
    """Drop a job with media of its own."""
    for part in ("face.jpg", "voice.wav"):
        setup.put(f"{name}-{part}", name.encode())
    text = json.dumps({"avatar": f"{name}-face.jpg", "audio": f"{name}-voice.wav", **keys})
    setup.put(f"{name}.json", text.encode())


def test_what_was_published_since_the_backup_is_not_made_again(setup: Setup) -> None:
    """Queued, with an id, as a pair, and dropped after the backup: each has one result, and its row says done."""
    setup.put("pause")
    drop(setup, "queued")
    drop(setup, "keyed", id="order-1")
    setup.put("pair.jpg")
    setup.put("pair.wav")
    (setup.folders.inbox / "batch").mkdir()
    for file in ("one.jpg", "one.wav"):
        setup.put(f"batch/{file}")
    for name in ("queued", "keyed", "pair", "one"):
        setup.run(name, "queued")
    backup = back_up(setup)
    setup.put("resume")
    drop(setup, "later", id="order-2")
    names = ["keyed", "later", "one", "pair", "queued"]
    for name in names:
        setup.run(name, "done")
    for _ in range(5):
        setup.turn(pass_s=1.0)
    before = {name: row(setup, name) for name in names}
    restore(setup, backup)
    assert results(setup) == ["batch", "keyed", "later", "pair", "queued"]
    assert [path.name for path in (setup.folders.outbox / "batch").iterdir()] == ["one"]
    for name in names:
        after = row(setup, name)
        for key in ("uid", "id", "state", "result", "frames", "duration_s", "engine", "created_at", "finished_at"):
            assert after[key] == before[name][key], (name, key)
    assert list(setup.folders.claimed.iterdir()) == []
    setup.put("resume")
    drop(setup, "later", id="order-2")
    for _ in range(30):
        setup.turn(pass_s=1.0)
    assert results(setup) == ["batch", "keyed", "later", "later-2", "pair", "queued"]
    assert json.loads((setup.folders.outbox / "later-2" / "result.json").read_text())["cached_from"] == "later"


def test_what_failed_since_the_backup_stays_failed_and_can_be_retried(setup: Setup) -> None:
    """Its inputs are in failed/NAME, with the uid in error.json."""
    setup.put("pause")
    drop(setup, "late", avatar="never.jpg")
    setup.turn(pass_s=5.0)
    setup.turn(pass_s=5.0)
    backup = back_up(setup)
    setup.put("late.cancel")
    drop(setup, "bad", audio="/etc/passwd")
    setup.run("late", "cancelled")
    setup.run("bad", "failed")
    for _ in range(5):
        setup.turn(pass_s=1.0)
    restore(setup, backup)
    assert (setup.state("late"), setup.state("bad")) == ("cancelled", "failed")
    assert row(setup, "bad")["error_code"] == "outside_roots"
    assert sorted(path.name for path in setup.folders.failed.iterdir()) == ["bad", "late"]
    setup.put("never.jpg")
    setup.put("late-voice.wav")
    setup.put("resume")
    setup.put("late.retry", b"")
    setup.run("late", "done")


def test_a_job_whose_result_was_taken_away_is_not_made_again(setup: Setup) -> None:
    """Its claimed files were filed away, so it has ended; the row says what is known."""
    setup.put("pause")
    drop(setup, "taken")
    setup.run("taken", "queued")
    backup = back_up(setup)
    setup.put("resume")
    setup.run("taken", "done")
    for _ in range(5):
        setup.turn(pass_s=1.0)
    (setup.folders.outbox / "taken").rename(setup.root / "elsewhere")
    restore(setup, backup)
    assert results(setup) == []
    assert (setup.state("taken"), row(setup, "taken")["error_code"]) == ("failed", "inputs_gone")


def test_a_ledger_of_the_same_time_reads_no_results(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A normal start compares the marks and no more."""
    drop(setup, "hello")
    setup.run("hello", "done")
    for _ in range(5):
        setup.turn(pass_s=1.0)
    monkeypatch.setattr("agent.results.reconcile.read_outcomes", lambda *_, **__: pytest.fail("the outbox was read"))
    restore(setup, back_up(setup))
    assert row(setup, "hello")["state"] == "done"


class Crash(Exception):
    """The process ends here."""


def raise_crash(*_: object) -> None:
    raise Crash


def test_a_crash_after_a_rename_is_seen_by_an_older_ledger(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark on the share changes before the result appears, so that no moment is missed."""
    setup.put("pause")
    drop(setup, "cut")
    setup.run("cut", "queued")
    backup = back_up(setup)
    setup.put("resume")
    monkeypatch.setattr(setup.daemon.publisher, "_finish", raise_crash)
    with pytest.raises(Crash):
        setup.run("cut", "done")
    monkeypatch.undo()
    restore(setup, backup)
    assert results(setup) == ["cut"]
    assert row(setup, "cut")["state"] == "done"


def test_a_job_that_is_tried_again_is_not_failed_by_its_old_error(setup: Setup) -> None:
    """A user's copy of failed/NAME says that it has failed, which is older than the row."""
    setup.put("pause")
    drop(setup, "again")
    setup.run("again", "queued")
    setup.put("again.cancel")
    setup.run("again", "cancelled")
    for _ in range(5):
        setup.turn(pass_s=1.0)
    shutil.copytree(setup.folders.failed / "again", setup.folders.failed / "again copy")
    setup.put("again.retry", b"")
    setup.run("again", "queued")
    setup.folders.ledger_mark.unlink()
    restore(setup, back_up(setup))
    assert setup.state("again") == "queued"


ODD_VALUES: list[dict[str, Any]] = [
    {"finished_at": "9999-12-31T23:59:59-12:00"},
    {"created_at": "9999-12-31T23:59:59-12:00"},
    {"started_at": "0001-01-01T00:00:00Z"},
    {"finished_at": "1969-12-31T00:00:00Z"},
    {"duration_s": float("inf")},
    {"duration_s": "inf"},
    {"frames": "25"},
    {"loudness": float("nan")},
    {"loudness": [1e999]},
]


@pytest.mark.parametrize("odd", ODD_VALUES, ids=repr)
def test_a_result_with_a_value_that_no_row_can_hold_is_ignored(tmp_path: Path, odd: dict[str, Any]) -> None:
    """Users may write into the outbox: a time beyond the calendar would end the daemon when it files the job away."""
    desk = Desk(tmp_path)
    part, at = {"given": "x.jpg", "sha256": "a" * 64}, "2026-01-01T00:00:00Z"
    record = {
        "uid": "0" * 16,
        "name": "fine",
        "engine": "e",
        "engine_reason": "r",
        "frames": 25,
        "fps": "25",
        "id": None,
    }
    record |= {"width": 2, "height": 2, "duration_s": 1.0, "encoder": "x", "avatar": part, "audio": part}
    record |= {"created_at": at, "started_at": at, "finished_at": at}
    for number, values in enumerate([{}, {"uid": "1" * 16, "name": "odd", **odd}]):
        folder = desk.folders.outbox / str(number)
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(record | values))
        (folder / "result.mp4").touch()
    reconcile(desk.folders, desk.ledger, desk.clock)
    assert [row["name"] for row in desk.ledger.rows("SELECT name FROM job_status")] == ["fine"]


def test_records_that_are_not_ours_are_ignored(tmp_path: Path) -> None:
    """Users may write into outbox and failed: nothing there ends the daemon."""
    desk = Desk(tmp_path)
    good = {"uid": "0" * 16, "state": "failed", "code": "x", "message": "m", "hint": "h", "retry": 1, "id": None}
    good |= {"created_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:00Z", "name": "fine"}
    texts = [b"", b"[]", b"[" * 100_000, b'{"uid": 1}', b'{"uid": "' + b"0" * 16 + b'"}', b"\xff"]
    texts += [json.dumps(good | {"uid": "1" * 16, "name": "\ud800"}).encode()]
    texts += [json.dumps(good | {"uid": "2" * 16, "finished_at": 7}).encode()]
    texts += [json.dumps(good).encode()]
    for number, text in enumerate(texts):
        for folder, file in ((desk.folders.outbox, "result.json"), (desk.folders.failed, "error.json")):
            (folder / str(number)).mkdir()
            (folder / str(number) / file).write_bytes(text)
            (folder / str(number) / "result.mp4").touch()
    reconcile(desk.folders, desk.ledger, desk.clock)
    [only] = desk.ledger.rows("SELECT name, state FROM job_status")
    assert only == {"name": "fine", "state": JobState.FAILED}


@pytest.mark.parametrize(
    "more",
    [
        {"voices": [{"face": 0, "given": "a.wav", "sha256": "a"}]},
        {"soundtrack": {"given": "music.mp3", "sha256": "a"}},
        {"background": "#00b140"},
        {"background": {"given": "wall.jpg", "sha256": "a"}},
        {"painted": [[5, 20]]},
    ],
)
def test_a_result_of_more_than_face_and_voice_serves_no_plain_job(more: dict[str, Any]) -> None:
    """Its record doesn't say all that was asked: a job of the same face and voice is rendered."""
    part = {"given": "x.jpg", "sha256": "a" * 64}
    record = {"frames": 25, "asked": {}, "avatar": part, "audio": part, "options": {}, "id": "order-1"}
    assert make_spec({**record, "painted": [[0, 25]]}) is not None
    assert make_spec({**record, **more}) is None
