"""The ledger: its views, its transactions, and the files that it refuses."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from agent.ledger.reader import LedgerError
from agent.ledger.transitions import IllegalMove
from tests.agent.conftest import DURABLE_PRAGMAS
from tests.agent.samples import a_ledger, a_spec, add_job, set_columns, start_job


def test_a_job_walks_from_queue_to_done(tmp_path: Path) -> None:
    """The views show a job's whole way, with times in ISO 8601."""
    ledger = a_ledger(tmp_path)
    job = add_job(ledger, "u1", name="hello", at_ms=1_700_000_000_000)
    job = start_job(ledger, job, "token", at_ms=1_700_000_001_000)
    ledger.update("u1", frames=75, duration_s=3.0, stage="render", units_done=30, units_total=75)
    [row] = ledger.rows("SELECT * FROM job_status")
    assert (row["state"], row["stage"], row["percent"], row["frames"]) == ("running", "render", 39.2, 75)
    ledger.transitions.finish(job, "hello", at_ms=1_700_000_003_500)
    [row] = ledger.rows("SELECT * FROM job_status")
    assert row["percent"] == 100.0
    assert row["created_at"] == "2023-11-14T22:13:20.000Z"
    assert row["run_seconds"] == 2.5
    assert [event["kind"] for event in ledger.rows("SELECT kind FROM job_events")] == [
        "waiting",
        "queued",
        "running",
        "done",
    ]
    assert ledger.rows("SELECT outcome FROM job_attempts") == [{"outcome": "done"}]


def test_what_belongs_together_is_one_transaction(tmp_path: Path) -> None:
    """When the second half fails, the first did not happen either."""
    ledger = a_ledger(tmp_path)
    job = add_job(ledger, "u1")

    def both() -> None:
        with ledger.together():
            ledger.update("u1", device="cpu:0")
            ledger.transitions.finish(job, "u1", at_ms=2)

    with pytest.raises(IllegalMove):
        both()
    assert ledger.rows("SELECT device FROM job_status") == [{"device": None}]


def test_find_takes_name_id_or_uid_and_prefers_the_newest(tmp_path: Path) -> None:
    """Control files and the command line name jobs as people know them."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "u1", name="talk", id="key-1", state=JobState.FAILED)
    add_job(ledger, "u2", name="talk")
    assert [job.uid if job else None for job in map(ledger.find, ("talk", "key-1", "u1", "none"))] == [
        "u2",
        "u1",
        "u1",
        None,
    ]
    found = ledger.find("talk", JobState.FAILED)
    assert found is not None
    assert found.uid == "u1"


def test_throughput_counts_by_the_hour(tmp_path: Path) -> None:
    """Frames and seconds of video are summed over the jobs that were done."""
    ledger = a_ledger(tmp_path)
    for uid, state in (("a", JobState.DONE), ("b", JobState.DONE), ("c", JobState.FAILED)):
        add_job(ledger, uid, state=state, at_ms=0)
        set_columns(ledger, uid, finished_ms=4000, frames=50, duration_s=2.0)
    [row] = ledger.rows("SELECT * FROM throughput")
    assert (row["done"], row["failed"], row["frames"], row["video_seconds"]) == (2, 1, 100, 4.0)
    assert row["mean_turnaround_s"] == 4.0


def test_a_newer_ledger_is_refused_and_not_touched(tmp_path: Path) -> None:
    """A schema from the future keeps its bytes."""
    path = tmp_path / "state" / "jobs.db"
    a_ledger(tmp_path).close()
    with sqlite3.connect(path) as conn:
        conn.execute("PRAGMA user_version = 99")
    conn.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="newer musedrop"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_foreign_or_broken_file_is_refused(tmp_path: Path) -> None:
    """Another program's database, and a file that is none, each get a message."""
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as conn:
        conn.execute("PRAGMA application_id = 7")
    conn.close()
    with pytest.raises(LedgerError, match="another program"):
        Ledger(foreign)
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database, but long enough to look like one" * 100)
    with pytest.raises(LedgerError, match="backup"):
        Ledger(broken)


def test_the_schema_keeps_its_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WAL, full sync, strict tables, and the versions that readers rely on."""
    monkeypatch.setattr("agent.ledger.ledger.PRAGMAS", DURABLE_PRAGMAS)
    ledger = a_ledger(tmp_path)
    pragmas = {name: ledger.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}
    assert ledger.db.execute("PRAGMA user_version").fetchone()[0] == 3
    assert all(ledger.db[table].strict for table in ("jobs", "attempts", "events", "devices", "drained", "submitters"))  # type: ignore[union-attr]
    assert {"job_status", "queue", "device_status", "throughput"} <= set(ledger.db.view_names())


@settings(max_examples=25)
@given(name=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_survives_the_ledger(name: str) -> None:
    """Names come back as they went in."""
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "jobs.db")
        ledger.transitions.add("u1", name, a_spec(), at_ms=1)
        job = ledger.job("u1")
        ledger.close()
    assert job is not None
    assert job.name == name


def test_a_block_within_a_transaction_is_part_of_it(tmp_path: Path) -> None:
    """It takes no statement of its own, and goes with the whole; a move that is not allowed changes nothing."""
    ledger = a_ledger(tmp_path)
    job = add_job(ledger, "u1")
    statements = list[str]()
    ledger.db.conn.set_trace_callback(statements.append)
    with suppress(RuntimeError), ledger.together():
        with ledger.together():
            ledger.remember("inner", "1")
        with pytest.raises(IllegalMove):
            ledger.transitions.finish(job, "hello", at_ms=1)
        raise RuntimeError("a test")
    ledger.db.conn.set_trace_callback(None)
    assert ledger.recall("inner") is None
    assert not any("SAVEPOINT" in statement for statement in statements)
    ledger.close()
