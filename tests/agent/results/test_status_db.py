"""status.db: when the daemon copies the ledger to the share."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from threading import Thread

import pytest

from agent.ledger.ledger import Ledger
from agent.results.status_db import LAST_COPY_S, StatusDatabase
from agent.service.problems import Problems
from agent.settings import CurrentSettings
from agent.settings_file import load_settings
from tests.agent.fake_clock import FakeClock
from tests.agent.samples import add_job


def names(path: Path) -> list[str]:
    conn = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        return [row[0] for row in conn.execute("SELECT name FROM job_status ORDER BY name")]
    finally:
        conn.close()


class Desk:
    """A share, a ledger, and what copies one to the other."""

    def __init__(self, root: Path, every_s: float = 10.0) -> None:
        (root / "share").mkdir()
        (root / "musedrop.toml").write_text(f'share = "share"\nstate = "state"\n[status]\nsnapshot_s = {every_s}\n')
        settings = load_settings(root / "musedrop.toml")
        self.settings, self.clock = CurrentSettings(settings), FakeClock()
        self.share, self.target = settings.share, settings.folders.snapshot
        self.ledger, self.problems = Ledger(settings.folders.ledger), Problems()
        self.status_db = StatusDatabase(self.settings, self.ledger, self.problems, self.clock)

    def at(self, now: float) -> float:
        """One turn of the daemon at that time, and the end of the copy it may have begun; when the copy was written."""
        self.clock.now = now
        self.status_db.update()
        thread = self.status_db._thread
        if thread is not None:
            thread.join(LAST_COPY_S)
        return self.target.stat().st_mtime_ns if self.target.exists() else 0


def test_a_copy_is_made_when_something_changed(tmp_path: Path) -> None:
    """At most every snapshot_s seconds, and only after a change."""
    desk = Desk(tmp_path)
    first = desk.at(0.0)
    assert names(desk.target) == []
    assert desk.at(11.0) == first, "nothing has changed"
    add_job(desk.ledger, "one")
    desk.at(12.0)
    assert names(desk.target) == ["one"]
    add_job(desk.ledger, "two")
    desk.at(21.0)
    assert names(desk.target) == ["one"], "ten seconds have not passed"
    desk.at(22.0)
    assert names(desk.target) == ["one", "two"]


def test_another_pace_counts_from_the_last_copy(tmp_path: Path) -> None:
    """A changed snapshot_s, which SIGHUP takes over, is kept to from the next turn on."""
    desk = Desk(tmp_path, every_s=1000.0)
    desk.at(0.0)
    add_job(desk.ledger, "one")
    desk.at(20.0)
    assert names(desk.target) == []
    settings = desk.settings.current
    faster = settings.status.model_copy(update={"snapshot_s": 10.0})
    desk.settings.replace(settings.model_copy(update={"status": faster}))
    desk.at(21.0)
    assert names(desk.target) == ["one"]


def test_no_copies_unless_asked_for(tmp_path: Path) -> None:
    """0, the default, leaves none, at the end neither."""
    desk = Desk(tmp_path, every_s=0)
    assert desk.at(100.0) == 0
    desk.status_db.finish()
    assert not desk.target.exists()


def test_the_end_leaves_a_last_copy(tmp_path: Path) -> None:
    """Whatever changed after the last one is in it."""
    desk = Desk(tmp_path)
    desk.at(0.0)
    add_job(desk.ledger, "late")
    desk.status_db.finish()
    assert names(desk.target) == ["late"]


def test_a_share_that_takes_no_copy_is_a_trouble(tmp_path: Path) -> None:
    """It is said, tried again without a change, and over when it works."""
    desk = Desk(tmp_path)
    desk.share.rename(tmp_path / "away")
    desk.at(0.0)
    desk.at(1.0)
    assert "status.db can't be written" in desk.problems["snapshot"]
    (tmp_path / "away").rename(desk.share)
    desk.at(10.0)
    desk.at(11.0)
    assert desk.problems["snapshot"] == ""
    assert names(desk.target) == []


def test_a_copy_without_a_thread_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system allows no further thread, the daemon goes on and tries again."""
    desk = Desk(tmp_path)

    def refuse(_thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", refuse)
        desk.status_db.update()
        desk.status_db.update()
    assert "can't start new thread" in desk.problems["snapshot"]
