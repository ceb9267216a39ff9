"""The rows of the queue: whose turn it is, in the daemon and in the view."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.jobs.queue_order import sort_by_turn
from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from tests.agent.samples import a_ledger, add_job, set_columns, start_job


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


def test_jobs_of_an_engine_can_be_held(tmp_path: Path) -> None:
    """They are passed over, however many they are, and say what they wait for unless all jobs wait for something."""
    ledger = a_ledger(tmp_path)
    for n in range(5):
        add_job(ledger, f"auto{n}", priority=10)
    add_job(ledger, "preview", engine="preview")
    assert [turn.id for turn in ledger.queue.list_ready(2000, 2, ["auto", "musetalk"])] == [6]
    assert (ledger.queue.count_ready(2000, ["auto"]), ledger.queue.count_ready(2000)) == (1, 6)
    said = "SELECT name, waiting_for FROM job_status WHERE waiting_for IS NOT NULL ORDER BY name"
    ledger.queue.set_waiting_for(None, {"auto": "reboot", "musetalk": "reboot"})
    assert [tuple(row.values()) for row in ledger.rows(said)] == [(f"auto{n}", "reboot") for n in range(5)]
    ledger.queue.set_waiting_for("a disk is full", {"auto": "reboot"})
    assert {row["waiting_for"] for row in ledger.rows(said)} == {"a disk is full"}
    ledger.queue.set_waiting_for(None)
    assert ledger.rows(said) == []


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
    half_a_minute = 30_000  # so that no job gains a level between the two queries
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


OPEN = st.tuples(
    st.sampled_from(["anna", "bert"]), st.integers(-1, 1), st.integers(0, 30), st.sampled_from(["", "later", "waiting"])
)


@settings(max_examples=25, deadline=None)
@given(st.lists(OPEN, max_size=15), st.integers(1, 6))
def test_the_first_of_the_queue_are_those_of_the_view(jobs: list[tuple[str, int, int, str]], limit: int) -> None:
    """status.json shows the beginning of `queue` without ranking what comes behind."""
    now = time.time_ns() // 1_000_000
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "jobs.db")
        with ledger.together():
            for n, (submitter, priority, minutes, how) in enumerate(jobs):
                state = JobState.WAITING if how == "waiting" else JobState.QUEUED
                add_job(ledger, f"u{n}", state=state, at_ms=now - minutes * 60_000 - 30_000)
                ledger.update(f"u{n}", submitter=submitter, priority=priority)
                if how == "later":
                    set_columns(ledger, f"u{n}", not_before_ms=now + 60_000)
        shown = ledger.rows("SELECT * FROM queue ORDER BY position LIMIT ?", [limit])
        first = ledger.queue.list_first(now, limit)
        ledger.close()
    assert first == shown
