"""The copy of the ledger: one plain file, whole or not there."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agent.ledger import snapshot
from agent.ledger.reader import LedgerError
from agent.ledger.schema import SCHEMA_VERSION
from agent.ledger.snapshot import copy_ledger
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
    assert pragmas == ["delete", SCHEMA_VERSION, "ok"]
    assert conn.execute("PRAGMA application_id").fetchone() == ledger.db.execute("PRAGMA application_id").fetchone()
    conn.close()
    assert [path.name for path in target.parent.iterdir()] == [name]


def test_a_loop_in_the_place_of_the_copy_is_replaced(tmp_path: Path) -> None:
    """Users of the share may put one there, and it is no error of the ledger."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "u1", name="hello")
    target = tmp_path / "status.db"
    target.symlink_to(target.name)
    copy_ledger(tmp_path / "state" / "jobs.db", target)
    assert names(target) == ["hello"]


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


def test_sqlite_never_writes_where_other_users_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens files by name, several times: the copy is made in the state folder, which has nothing of it later."""
    ledger, make_copy = a_ledger(tmp_path), snapshot._copy
    places: list[Path] = []

    def note_copy(source: Path, target: Path) -> None:
        places.append(target)
        make_copy(source, target)

    monkeypatch.setattr(snapshot, "_copy", note_copy)
    (tmp_path / "share").mkdir()
    copy_ledger(tmp_path / "state" / "jobs.db", tmp_path / "share" / "status.db")
    [place] = places
    assert place.parent.parent == tmp_path / "state"
    assert not place.parent.exists()
    assert names(tmp_path / "share" / "status.db") == []
    ledger.close()


def test_folders_of_copies_that_were_cut_off_are_removed(tmp_path: Path) -> None:
    """One in which a copy is being made stays."""
    for name in (".copy-cut", ".copy-live", "work"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "copy.db").touch()
    with snapshot._lock(tmp_path / ".copy-live"):
        snapshot.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".copy-live", "work"]
