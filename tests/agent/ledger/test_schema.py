"""Ledgers of every released schema open for ever, what they promise stays, and those of the future are left alone."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent.ledger import ledger as room
from agent.ledger.ledger import Ledger
from agent.ledger.reader import LedgerError, open_reader
from agent.ledger.schema import SCHEMA_VERSION
from tests.agent.samples import a_ledger, add_job, start_job

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data"
LEDGERS = sorted(DATA.glob("ledger-*.db"))
PROMISES = sorted(DATA.glob("views-*.json"))
STATES = {"waiting": "waiting", "queued": "queued", "done": "done", "refused": "failed", "failed": "failed"}
STATES["cancelled"] = "cancelled"


def laid_out(tmp_path: Path, source: Path) -> Path:
    """A copy of a released ledger where a daemon would look for it."""
    path = tmp_path / "state" / "jobs.db"
    path.parent.mkdir()
    shutil.copyfile(source, path)
    return path


def schema(conn: sqlite3.Connection) -> dict[str, str]:
    return dict(conn.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE '%sqlite_%'").fetchall())


def test_there_is_a_ledger_of_every_schema() -> None:
    """A new migration needs a new file: `python -m tests.e2e.released ledger tests/data/ledger-N.db`."""
    assert [path.name for path in LEDGERS] == [f"ledger-{n}.db" for n in range(1, SCHEMA_VERSION + 1)]


@pytest.mark.parametrize("source", LEDGERS, ids=lambda path: path.name)
def test_a_released_ledger_opens_and_goes_on(tmp_path: Path, source: Path) -> None:
    """All its jobs are there, as jobs and in every view; they move on, and new ones come beside them."""
    path = laid_out(tmp_path, source)
    ledger = Ledger(path)
    found = {name: ledger.find(name) for name in STATES}
    assert {name: job and str(job.state) for name, job in found.items()} == STATES
    done, queued = found["done"], found["queued"]
    assert done is not None
    assert (done.client_id, done.submitter, done.priority, done.result) == ("order-1", "anna", 10, "done")
    assert queued is not None
    started = start_job(ledger, queued, "token", at_ms=2_000_000_000_000)
    ledger.transitions.finish(started, "queued", at_ms=2_000_000_000_001)
    add_job(ledger, "new")
    for view, rows in (("job_status", 7), ("queue", 2), ("job_attempts", 3), ("device_status", 2), ("throughput", 2)):
        assert ledger.db[view].count == rows, view
    assert ledger.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    ledger.close()


@pytest.mark.parametrize("source", LEDGERS, ids=lambda path: path.name)
def test_a_released_ledger_becomes_what_a_new_one_is(tmp_path: Path, source: Path) -> None:
    """After the migrations both have the same tables, indexes and views: a released migration is never edited."""
    old, new = Ledger(laid_out(tmp_path, source)), Ledger(tmp_path / "new.db")
    assert schema(old.db.conn) == schema(new.db.conn)
    assert old.rows("PRAGMA user_version") == new.rows("PRAGMA user_version") == [{"user_version": SCHEMA_VERSION}]
    old.close()
    new.close()


def test_a_new_ledger_appears_with_all_its_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads while the daemon lays it out sees no schema at all, never the first half of one."""
    path, seen = tmp_path / "jobs.db", []

    def look(_name: str) -> None:
        reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        seen.append(reader.execute("PRAGMA user_version").fetchone()[0])
        reader.close()

    monkeypatch.setattr("agent.ledger.schema.failpoint", look)
    Ledger(path).close()
    assert seen == [0] * SCHEMA_VERSION


@pytest.mark.parametrize("source", LEDGERS, ids=lambda path: path.name)
def test_readers_open_a_released_ledger(tmp_path: Path, source: Path) -> None:
    """Without a daemon that would bring it to a newer schema."""
    db = open_reader(laid_out(tmp_path, source))
    assert {row["name"]: row["state"] for row in db.query("SELECT name, state FROM job_status")} == STATES
    db.close()


@pytest.mark.parametrize("promise", PROMISES, ids=lambda path: path.name)
def test_no_promised_column_goes(tmp_path: Path, promise: Path) -> None:
    """Every view has every column that it has ever had, under its name."""
    ledger = a_ledger(tmp_path)
    for view, columns in json.loads(promise.read_text()).items():
        present = {row[1] for row in ledger.db.execute(f"PRAGMA table_info({view})")}
        assert set(columns) <= present, view
    ledger.close()


def test_the_latest_promise_is_whole(tmp_path: Path) -> None:
    """A column that is added is a promise from then on: it is written down, and the docs name the version."""
    ledger = a_ledger(tmp_path)
    promised = json.loads(PROMISES[-1].read_text())
    present = {v: [row[1] for row in ledger.db.execute(f"PRAGMA table_info({v})")] for v in ledger.db.view_names()}
    ledger.close()
    assert present == promised
    page = (ROOT / "docs" / "status-queries.md").read_text()
    assert re.search(r"version (\d+)", page) is not None
    assert f"are the promise, version {len(PROMISES)}:" in page
    assert f"({SCHEMA_VERSION} in this release)" in page


def test_an_upgrade_leaves_the_ledger_as_it_was_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first migration a copy is made, for those who want to go back."""
    path = laid_out(tmp_path, LEDGERS[-1])
    monkeypatch.setattr(room, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    Ledger(path).close()
    backup = open_reader(path.with_name(f"jobs.schema-{SCHEMA_VERSION}.db"))
    assert len(list(backup.query("SELECT name FROM job_status"))) == len(STATES)
    assert list(backup.query("PRAGMA user_version")) == [{"user_version": SCHEMA_VERSION}]
    backup.close()


def test_a_ledger_of_the_future_is_refused_and_not_touched(tmp_path: Path) -> None:
    """The daemon says which versions and what to do, ends with 2, and no byte and no file has changed."""
    path = laid_out(tmp_path, LEDGERS[-1])
    conn = sqlite3.connect(path)
    conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    conn.close()
    (tmp_path / "share").mkdir()
    (tmp_path / "musedrop.toml").write_text('share = "share"\nstate = "state"\n')
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=f"newer musedrop .schema {SCHEMA_VERSION + 1}"):
        Ledger(path)
    command = [sys.executable, "-m", "agent.cli.main", "run", "--config", str(tmp_path / "musedrop.toml")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 2, run.stderr
    assert "newer musedrop" in run.stderr
    assert "Traceback" not in run.stderr
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.glob("jobs*")] == ["jobs.db"]
    assert list((tmp_path / "share").iterdir()) == []
