"""The ledger: states move by the table, readers read, and old or foreign files are refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.jobs.queue_order import sort_by_turn
from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from agent.ledger.reader import LedgerError, open_reader
from agent.ledger.transitions import IllegalMove
from gpu_pool.types import Device
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


def next_in(ledger: Ledger, at: int, limit: int) -> list[str]:
    ready = ledger.queue.list_ready(at, limit)
    return [job.uid for job in ledger.list_by_turn(sort_by_turn(ready, ledger.queue.served_ms(), at)[:limit])]


def test_the_queue_is_by_priority_then_age(tmp_path: Path) -> None:
    """Urgent jobs first, equal ones in the order they came; a job that has to rest is passed over."""
    ledger, now = a_ledger(tmp_path), time.time_ns() // 1_000_000
    for uid, priority in (("a", 0), ("b", 10), ("c", 0), ("d", 10)):
        add_job(ledger, uid, priority=priority, at_ms=now - 1000)
    set_columns(ledger, "b", not_before_ms=now + 60_000)
    assert next_in(ledger, now, 10) == ["d", "a", "c"]
    assert next_in(ledger, now + 60_000, 2) == ["b", "d"]
    assert ledger.queue.count_ready(now) == 3
    assert [row["name"] for row in ledger.rows("SELECT name FROM queue ORDER BY position")] == ["d", "a", "c", "b"]


def test_a_claim_takes_the_submitters_turn(tmp_path: Path) -> None:
    """Who had a job started comes after the others, also when both happened in the same millisecond."""
    ledger = a_ledger(tmp_path)
    for n, submitter in enumerate(("anna", "anna", "anna", "bert", "bert")):
        add_job(ledger, f"u{n}", submitter=submitter, at_ms=1000 + n)
    order = []
    for _ in range(5):
        [uid] = next_in(ledger, 2000, 1)
        job = ledger.job(uid)
        assert job is not None
        start_job(ledger, job, f"token-{uid}", at_ms=2000)
        order.append(uid)
    assert order == ["u0", "u3", "u1", "u4", "u2"]
    assert len(set(ledger.queue.served_ms().values())) == 2


def test_an_interruption_keeps_the_place_and_a_second_try_does_not(tmp_path: Path) -> None:
    """A job whose run was cut off has waited since it first came; one that is dropped again starts to wait anew."""
    ledger = a_ledger(tmp_path)
    job = add_job(ledger, "u1", at_ms=1000)
    job = start_job(ledger, job, "token", at_ms=2000)
    ledger.transitions.requeue(job, "cut off", at_ms=3000)
    assert [turn.since_ms for turn in ledger.queue.list_ready(4000, 1)] == [1000]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["anna", "bert", "cleo"]), st.integers(-3, 3), st.integers(0, 90)), max_size=12),
    st.dictionaries(st.sampled_from(["anna", "bert", "cleo"]), st.integers(1, 90)),
)
def test_the_view_shows_the_order_in_which_jobs_start(jobs: list[tuple[str, int, int]], served: dict[str, int]) -> None:
    """`queue.position` and the daemon's own choice agree, for any submitters, priorities and ages."""
    now = time.time_ns() // 1_000_000
    half_a_minute = 30_000  # so that nobody comes of age between the two looks
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "jobs.db")
        with ledger.together():
            for n, (submitter, priority, minutes) in enumerate(jobs):
                add_job(ledger, f"u{n}", at_ms=now - minutes * 60_000 - half_a_minute)
                ledger.update(f"u{n}", submitter=submitter, priority=priority)
            for submitter, minutes in served.items():
                ledger.queue.serve(submitter, now - minutes * 60_000)
        expected = next_in(ledger, now, 20)
        shown = [row["uid"] for row in ledger.rows("SELECT uid FROM queue ORDER BY position")]
        levels = [row["level"] for row in ledger.rows("SELECT level FROM queue ORDER BY position")]
        ledger.close()
    assert shown == expected
    assert levels == sorted(levels, reverse=True)


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


def test_devices_show_the_job_they_work_on(tmp_path: Path) -> None:
    """device_status joins the card, its memory in MiB and its job."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "u1", name="hello")
    card = Device("GPU-1/2", "cuda", card="GPU-1", total_bytes=4 << 20, free_bytes=3 << 20, held_bytes=1 << 20)
    ledger.devices.record(replace(card, state="busy", model="musetalk", load_s=2.5, batch=8), at_ms=1000, job="u1")
    [row] = ledger.rows("SELECT * FROM device_status")
    assert (row["device"], row["card"], row["total_mib"], row["free_mib"]) == ("GPU-1/2", "GPU-1", 4, 3)
    assert (row["held_mib"], row["model"], row["load_seconds"], row["batch"]) == (1, "musetalk", 2.5, 8)
    assert (row["job"], row["until"]) == ("hello", None)


def test_a_device_says_since_when_it_is_as_it_is(tmp_path: Path) -> None:
    """`since` moves with the state and not with the memory; a sick device says when it is tried again."""
    ledger = a_ledger(tmp_path)
    card = Device("GPU-1", "cuda", state="idle")
    ledger.devices.record(card, at_ms=1000)
    ledger.devices.record(replace(card, free_bytes=5), at_ms=2000)
    [row] = ledger.rows("SELECT since, updated_at FROM device_status")
    assert (row["since"], row["updated_at"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:02.000Z")
    ledger.devices.record(replace(card, state="sick", reason="broken"), at_ms=3000, until_ms=33_000)
    [row] = ledger.rows("SELECT since, until, reason FROM device_status")
    assert list(row.values()) == ["1970-01-01T00:00:03.000Z", "1970-01-01T00:00:33.000Z", "broken"]


def test_what_was_drained_stays_so(tmp_path: Path) -> None:
    """The list of devices is of this start, the list of those set aside is for all."""
    ledger = a_ledger(tmp_path)
    ledger.devices.record(Device("cpu:0", "cpu"), at_ms=1)
    for device in ("cpu:0", "cpu:0", "cpu:1"):
        ledger.devices.drain(device, 1)
    ledger.devices.clear()
    ledger.close()
    again = a_ledger(tmp_path)
    assert again.rows("SELECT * FROM device_status") == []
    assert again.devices.list_drained() == {"cpu:0", "cpu:1"}
    again.devices.resume("cpu:1")
    assert again.devices.list_drained() == {"cpu:0"}


def test_throughput_counts_by_the_hour(tmp_path: Path) -> None:
    """Frames and seconds of video are summed over the jobs that were done."""
    ledger = a_ledger(tmp_path)
    for uid, state in (("a", JobState.DONE), ("b", JobState.DONE), ("c", JobState.FAILED)):
        add_job(ledger, uid, state=state, at_ms=0)
        set_columns(ledger, uid, finished_ms=4000, frames=50, duration_s=2.0)
    [row] = ledger.rows("SELECT * FROM throughput")
    assert (row["done"], row["failed"], row["frames"], row["video_seconds"]) == (2, 1, 100, 4.0)
    assert row["mean_turnaround_s"] == 4.0


def test_another_process_reads_while_the_daemon_writes(tmp_path: Path) -> None:
    """A reader sees committed rows at once and can't write."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "u1", name="hello")
    db = open_reader(tmp_path / "state" / "jobs.db")
    assert list(db.query("SELECT name FROM job_status")) == [{"name": "hello"}]
    add_job(ledger, "u2", name="again")
    assert len(list(db.query("SELECT name FROM job_status"))) == 2
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM jobs")


def test_a_reader_without_write_permission_reads_a_ledger_at_rest() -> None:
    """After the daemon has stopped, its files are read as they lie, by a user who may only read them."""
    root = Path(__file__).parents[3]
    code = (
        "import os, sys; from pathlib import Path; from agent.ledger.reader import open_reader\n"
        "os.getuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534))\n"
        "print([row['name'] for row in open_reader(Path(sys.argv[1])).query('SELECT name FROM job_status')])"
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        ledger = Ledger(path)
        add_job(ledger, "u1", name="hello")
        ledger.close()
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", code, str(path)]
        run = subprocess.run(command, capture_output=True, text=True, cwd=root)
        Path(folder).chmod(0o755)
    assert run.stdout == "['hello']\n", run.stderr


def test_no_ledger_is_said_clearly(tmp_path: Path) -> None:
    """Asking before the daemon ever ran names the file and the likely reason."""
    with pytest.raises(LedgerError, match="has the daemon run"):
        open_reader(tmp_path / "jobs.db")


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


def test_the_schema_keeps_its_promises(tmp_path: Path) -> None:
    """WAL, full sync, strict tables, and the versions that readers rely on."""
    ledger = a_ledger(tmp_path)
    pragmas = {name: ledger.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}
    assert ledger.db.execute("PRAGMA user_version").fetchone()[0] == 1
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
