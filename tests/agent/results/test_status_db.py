"""The copy of the ledger: one plain file, whole or not there, made beside the daemon's work."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agent.ledger.ledger import Ledger
from agent.ledger.reader import LedgerError
from agent.ledger.snapshot import copy_ledger
from agent.results.status_db import LAST_COPY_S, StatusDatabase
from agent.service.problems import Problems
from agent.settings import CurrentSettings
from agent.settings_file import load_settings
from tests.agent.fake_clock import FakeClock
from tests.agent.samples import a_ledger, add_job


def names(path: Path) -> list[str]:
    conn = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        return [row[0] for row in conn.execute("SELECT name FROM job_status ORDER BY name")]
    finally:
        conn.close()


@pytest.mark.parametrize("name", ["status.db", "a b?'%#.db", "Über\n.db"])
def test_a_copy_is_one_plain_file(tmp_path: Path, name: str) -> None:
    """It holds what is committed so far, with the ledger's versions, not in WAL mode, and nothing lies beside it."""
    ledger = a_ledger(tmp_path)
    (tmp_path / "share").mkdir()
    target = tmp_path / "share" / name
    for count, job in enumerate(("one", "two"), start=1):
        add_job(ledger, job)
        copy_ledger(tmp_path / "state" / "jobs.db", target)
        assert len(names(target)) == count
    conn = sqlite3.connect(target)
    pragmas = [conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "user_version", "quick_check")]
    assert pragmas == ["delete", 1, "ok"]
    assert conn.execute("PRAGMA application_id").fetchone() == ledger.db.execute("PRAGMA application_id").fetchone()
    conn.close()
    assert [path.name for path in target.parent.iterdir()] == [name]


def test_a_reader_of_the_old_copy_keeps_it(tmp_path: Path) -> None:
    """Whoever has a copy open reads on in that one, and finds the new one when they open it again."""
    ledger, target = a_ledger(tmp_path), tmp_path / "status.db"
    add_job(ledger, "one")
    copy_ledger(tmp_path / "state" / "jobs.db", target)
    conn = sqlite3.connect(f"{target.as_uri()}?immutable=1", uri=True)
    add_job(ledger, "two")
    copy_ledger(tmp_path / "state" / "jobs.db", target)
    assert conn.execute("SELECT count(*) FROM job_status").fetchone() == (1,)
    conn.close()
    assert names(target) == ["one", "two"]


def test_a_ledger_at_rest_is_copied_and_not_touched(tmp_path: Path) -> None:
    """No daemon has to run."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "one")
    ledger.close()
    path = tmp_path / "state" / "jobs.db"
    before = path.read_bytes()
    copy_ledger(path, tmp_path / "copy.db")
    assert names(tmp_path / "copy.db") == ["one"]
    assert path.read_bytes() == before


def test_what_cannot_be_copied_says_why(tmp_path: Path) -> None:
    """No ledger, no folder, and the ledger as its own target are refused; a failed copy leaves the last one."""
    ledger, path = a_ledger(tmp_path), tmp_path / "state" / "jobs.db"
    with pytest.raises(LedgerError, match="no ledger"):
        copy_ledger(tmp_path / "none.db", tmp_path / "copy.db")
    with pytest.raises(LedgerError, match="can't be copied"):
        copy_ledger(path, tmp_path / "nowhere" / "copy.db")
    (tmp_path / "link.db").symlink_to(path)
    for itself in (path, tmp_path / "link.db"):
        with pytest.raises(LedgerError, match="the ledger itself"):
            copy_ledger(path, itself)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        copy_ledger(path, tmp_path / "folder")
    ledger.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link.db", "state"]


# the daemon's copies -------------------------------------------------------------------------------------------------


class Room:
    """The room of a daemon, its share and its ledger."""

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
    room = Room(tmp_path)
    first = room.at(0.0)
    assert names(room.target) == []
    assert room.at(11.0) == first, "nothing has changed"
    add_job(room.ledger, "one")
    room.at(12.0)
    assert names(room.target) == ["one"]
    add_job(room.ledger, "two")
    room.at(21.0)
    assert names(room.target) == ["one"], "ten seconds have not passed"
    room.at(22.0)
    assert names(room.target) == ["one", "two"]


def test_another_pace_counts_from_the_last_copy(tmp_path: Path) -> None:
    """A changed snapshot_s, which SIGHUP takes over, is kept to from the next turn on."""
    room = Room(tmp_path, every_s=1000.0)
    room.at(0.0)
    add_job(room.ledger, "one")
    room.at(20.0)
    assert names(room.target) == []
    settings = room.settings.current
    faster = settings.status.model_copy(update={"snapshot_s": 10.0})
    room.settings.replace(settings.model_copy(update={"status": faster}))
    room.at(21.0)
    assert names(room.target) == ["one"]


def test_no_copies_unless_asked_for(tmp_path: Path) -> None:
    """0, the default, leaves none, at the end neither."""
    room = Room(tmp_path, every_s=0)
    assert room.at(100.0) == 0
    room.status_db.finish()
    assert not room.target.exists()


def test_the_end_leaves_a_last_copy(tmp_path: Path) -> None:
    """Whatever changed after the last one is in it."""
    room = Room(tmp_path)
    room.at(0.0)
    add_job(room.ledger, "late")
    room.status_db.finish()
    assert names(room.target) == ["late"]


def test_a_share_that_takes_no_copy_is_a_trouble(tmp_path: Path) -> None:
    """It is said, tried again without a change, and over when it works."""
    room = Room(tmp_path)
    room.share.rename(tmp_path / "away")
    room.at(0.0)
    room.at(1.0)
    assert "status.db can't be written" in room.problems["snapshot"]
    (tmp_path / "away").rename(room.share)
    room.at(10.0)
    room.at(11.0)
    assert room.problems["snapshot"] == ""
    assert names(room.target) == []
