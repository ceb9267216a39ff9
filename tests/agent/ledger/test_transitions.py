"""The moves between states: only those of the table happen, and each leaves the columns of its state."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.jobs.states import LIVE, MOVES, JobState
from agent.ledger.job import Job, JobError
from agent.ledger.ledger import Ledger
from agent.ledger.transitions import OWNED, IllegalMove, Transitions
from tests.agent.samples import ERROR, a_ledger, a_spec, add_job, read_job, set_columns, start_job

MEDIA = {"avatar": {"given": "face.jpg", "path": "/face.jpg"}}
ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
Move = Callable[[Transitions, Job], Job]
MOVERS: dict[JobState, list[Move]] = {
    JobState.WAITING: [lambda moves, job: moves.reopen(job, a_spec(), at_ms=2)],
    JobState.QUEUED: [lambda moves, job: moves.queue(job, MEDIA, at_ms=2)],
    JobState.RUNNING: [
        lambda moves, job: moves.start(job, "t", stage="inspect", engine="e", engine_reason="", at_ms=2)
    ],
    JobState.DONE: [lambda moves, job: moves.finish(job, "hello", at_ms=2)],
    JobState.FAILED: [lambda moves, job: moves.fail(job, ERROR, at_ms=2)],
    JobState.CANCELLED: [lambda moves, job: moves.cancel(job, at_ms=2)],
}


@pytest.mark.parametrize("before", list(JobState))
@pytest.mark.parametrize("after", list(JobState))
def test_only_the_moves_of_the_table_happen(tmp_path: Path, before: JobState, after: JobState) -> None:
    """A move that the table forbids raises and leaves the row as it was."""
    ledger = a_ledger(tmp_path)
    job = add_job(ledger, "u1", state=before)
    for move in MOVERS[after]:
        if after in MOVES[before]:
            moved = move(ledger.transitions, job)
            assert (moved.state, moved) == (after, read_job(ledger, "u1"))
        else:
            with pytest.raises(IllegalMove, match="u1"):
                move(ledger.transitions, job)
            assert read_job(ledger, "u1") == job


def test_a_lost_claim_cannot_finish_a_job(tmp_path: Path) -> None:
    """An attempt whose token is no longer the row's changes nothing."""
    ledger = a_ledger(tmp_path)
    lost = start_job(ledger, add_job(ledger, "u1"), "old", at_ms=2)
    holder = start_job(ledger, ledger.transitions.requeue(lost, "cut off", at_ms=3), "new", at_ms=4)
    with pytest.raises(IllegalMove):
        ledger.transitions.finish(lost, "hello", at_ms=5)
    assert ledger.state_of("u1") == "running"
    assert ledger.rows("SELECT outcome FROM job_attempts") == [{"outcome": "interrupted"}, {"outcome": None}]
    ledger.transitions.finish(holder, "hello", at_ms=6)
    assert ledger.rows("SELECT attempt FROM job_status") == [{"attempt": 2}]


@pytest.mark.parametrize(
    "move",
    [
        lambda moves, job: moves.requeue(job, "cut off", at_ms=3),
        lambda moves, job: moves.cancel(job, at_ms=3),
        lambda moves, job: moves.fail(job, ERROR, at_ms=3),
        lambda moves, job: moves.finish(job, "hello", at_ms=3),
    ],
)
def test_what_a_running_job_waited_for_is_forgotten(tmp_path: Path, move: Move) -> None:
    """A job that leaves its device says no longer that it needs memory of a card."""
    ledger = a_ledger(tmp_path)
    job = add_job(ledger, "u1", state=JobState.RUNNING)
    ledger.update("u1", waiting_for="it needs 9000 MiB of a card")
    assert move(ledger.transitions, job).waiting_for is None
    assert ledger.rows("SELECT waiting_for FROM job_status") == [{"waiting_for": None}]


def test_a_second_try_says_what_it_waits_for(tmp_path: Path) -> None:
    """The row names the delay and the failure; when the attempt starts it says nothing any more."""
    ledger = a_ledger(tmp_path)
    job = add_job(ledger, "u1", state=JobState.RUNNING)
    queued = ledger.transitions.retry_later(job, ERROR, delay_s=2.0, at_ms=1000)
    assert (queued.failures, queued.waiting_for) == (1, "a second try in 2 s, after: no face was found")
    assert ledger.queue.count_ready(2999) == 0
    assert ledger.queue.count_ready(3000) == 1
    assert start_job(ledger, queued, "again", at_ms=3000).waiting_for is None


def test_update_leaves_the_columns_of_the_state_alone(tmp_path: Path) -> None:
    """Progress and files are written beside the moves, the columns of the moves are not."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "u1")
    for column in OWNED:
        with pytest.raises(ValueError, match=column):
            ledger.update("u1", **{column: 1})
    ledger.update("u1", stage="render", units_done=5)


# all sequences -------------------------------------------------------------------------------------------------------

NULL: dict[str, Any] = dict.fromkeys(("run_token", "device", "result", "facts"))
NO_ERROR: dict[str, Any] = dict.fromkeys(("error_code", "error_message", "error_hint", "error_retry"))
UNFINISHED: dict[str, Any] = {"finished_ms": None, "inputs": None, "tidied": 0, "swept": 0}
NEW: dict[str, Any] = {
    **dict.fromkeys(("engine", "engine_reason", "outline", "frames", "duration_s")),
    **{"stage": "inspect", "units_done": 0, "units_total": 0, "media": "{}", "stage_seconds": "{}"},
    **{"failures": 0, "interruptions": 0, "crashes": 0, "cancel_requested": 0},
}
FIXED: dict[JobState, dict[str, Any]] = {
    JobState.WAITING: NULL | NO_ERROR | UNFINISHED | NEW | {"not_before_ms": 0},
    JobState.QUEUED: NULL | NO_ERROR | UNFINISHED,
    JobState.RUNNING: NO_ERROR | UNFINISHED | {"not_before_ms": 0},
    JobState.DONE: NO_ERROR
    | {"run_token": None, "device": None, "waiting_for": None, "not_before_ms": 0}
    | {"cancel_requested": 0},
    JobState.FAILED: NULL | {"waiting_for": None, "not_before_ms": 0, "cancel_requested": 0},
    JobState.CANCELLED: NULL | {"waiting_for": None, "not_before_ms": 0, "cancel_requested": 1},
}
"""Columns that have one value in a state, whatever happened before."""
PRESENT: dict[JobState, set[str]] = {
    JobState.RUNNING: {"run_token", "started_ms", "engine"},
    JobState.DONE: {"result", "finished_ms", "started_ms", "engine"},
    JobState.FAILED: {"error_code", "error_message", "error_hint", "error_retry", "finished_ms"},
    JobState.CANCELLED: {"finished_ms"},
}
"""Columns that are never NULL in a state."""


class Moves(RuleBasedStateMachine):
    """One job that goes any way through the table, with what a daemon writes beside the moves."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "jobs.db")
        self.ledger.db.conn.execute("PRAGMA synchronous = OFF")
        self.moves = self.ledger.transitions
        self.now_ms = 1
        self.job = self.moves.add("u1", "hello", a_spec(), at_ms=1)
        self.events = ["waiting"]

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    def at_ms(self) -> int:
        self.now_ms += 1
        return self.now_ms

    def follow(self, job: Job) -> None:
        self.job = job
        self.events.append(str(job.state))

    def is_in(self, *states: JobState) -> bool:
        return self.job.state in states

    @precondition(lambda self: self.is_in(JobState.WAITING))
    @rule()
    def queue(self) -> None:
        self.follow(self.moves.queue(self.job, MEDIA, at_ms=self.at_ms()))

    @precondition(lambda self: self.is_in(JobState.QUEUED))
    @rule(stage=st.sampled_from(["inspect", "render"]))
    def start(self, stage: str) -> None:
        self.follow(start_job(self.ledger, self.job, f"token-{self.now_ms}", at_ms=self.at_ms(), stage=stage))

    @precondition(lambda self: self.is_in(JobState.RUNNING))
    @rule(why=st.sampled_from(["the daemon was stopped", "the share went away"]))
    def requeue(self, why: str) -> None:
        self.follow(self.moves.requeue(self.job, why, at_ms=self.at_ms()))

    @precondition(lambda self: self.is_in(JobState.RUNNING))
    @rule(delay_s=st.sampled_from([2.0, 60.0]))
    def retry_later(self, delay_s: float) -> None:
        self.follow(self.moves.retry_later(self.job, ERROR, delay_s=delay_s, at_ms=self.at_ms()))

    @precondition(lambda self: self.is_in(JobState.RUNNING))
    @rule()
    def finish(self) -> None:
        self.follow(self.moves.finish(self.job, "hello", at_ms=self.at_ms()))

    @precondition(lambda self: self.is_in(*LIVE))
    @rule(retry=st.booleans())
    def fail(self, *, retry: bool) -> None:
        error = JobError("no_face", "no face was found", "choose another picture", retry)
        self.follow(self.moves.fail(self.job, error, at_ms=self.at_ms()))

    @precondition(lambda self: self.is_in(*LIVE))
    @rule()
    def cancel(self) -> None:
        self.moves.request_cancel(self.job)
        self.follow(self.moves.cancel(self.job, at_ms=self.at_ms()))

    @precondition(lambda self: self.is_in(JobState.FAILED, JobState.CANCELLED))
    @rule()
    def reopen(self) -> None:
        self.follow(self.moves.reopen(self.job, a_spec(), at_ms=self.at_ms()))

    @precondition(lambda self: self.is_in(JobState.FAILED, JobState.CANCELLED))
    @rule()
    def refuse_reopen(self) -> None:
        self.moves.refuse_reopen(self.job, ERROR, at_ms=self.at_ms())
        self.job = read_job(self.ledger, "u1")

    @precondition(lambda self: self.is_in(JobState.RUNNING))
    @rule(crash=st.booleans())
    def lose_a_worker(self, *, crash: bool) -> None:
        self.job = self.moves.record_interruption(self.job, "SIGKILL", crash=crash)

    @precondition(lambda self: self.is_in(JobState.RUNNING))
    @rule(stage=st.sampled_from(["render", "assemble"]))
    def progress(self, stage: str) -> None:
        outline = {"frames": 50}
        done: dict[str, Any] = {"stage": stage, "units_done": 7, "units_total": 50, "stage_seconds": {"inspect": 0.1}}
        self.ledger.update("u1", **done, device="cpu:0", outline=outline, frames=50, duration_s=2.0)
        self.job = read_job(self.ledger, "u1")

    @precondition(lambda self: self.is_in(JobState.RUNNING))
    @rule()
    def name_the_result(self) -> None:
        self.ledger.update("u1", stage="publish", facts={"notes": []}, result="hello", device=None)
        self.job = read_job(self.ledger, "u1")

    @precondition(lambda self: self.is_in(*LIVE))
    @rule()
    def explain(self) -> None:
        self.ledger.update("u1", waiting_for="it needs 9000 MiB of a card")

    @precondition(lambda self: self.is_in(*ENDED))
    @rule()
    def archive(self) -> None:
        self.ledger.update("u1", inputs="/share/failed/hello", tidied=1, swept=1)

    @invariant()
    def the_columns_are_those_of_the_state(self) -> None:
        [row] = self.ledger.rows("SELECT * FROM jobs")
        state = JobState(row["state"])
        assert state is self.job.state
        fixed = dict(FIXED[state])
        assert {key: row[key] for key in fixed} == fixed
        assert all(row[key] is not None for key in PRESENT.get(state, ()))
        delayed = row["not_before_ms"] > 0
        assert not delayed or row["waiting_for"] is not None

    @invariant()
    def each_attempt_has_an_outcome_once_it_is_over(self) -> None:
        attempts = self.ledger.rows("SELECT attempt, run_token, outcome, ended_ms FROM attempts ORDER BY attempt")
        assert [row["attempt"] for row in attempts] == list(range(1, self.job.attempt + 1))
        unended = [row["run_token"] for row in attempts if row["ended_ms"] is None]
        assert unended == ([self.job.run_token] if self.is_in(JobState.RUNNING) else [])
        assert all((row["outcome"] is None) == (row["ended_ms"] is None) for row in attempts)

    @invariant()
    def the_events_tell_the_way(self) -> None:
        events = self.ledger.rows("SELECT kind FROM job_events")
        assert [row["kind"] for row in events] == self.events


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_columns_that_an_earlier_release_left_are_cleared(tmp_path: Path) -> None:
    """0.1.0 kept the reason and the token of an attempt that was cut off: the next move takes them away."""
    ledger = a_ledger(tmp_path)
    job = add_job(ledger, "u1")
    set_columns(ledger, "u1", waiting_for="it needs 9000 MiB of a card", run_token="old", result="old")
    ledger.transitions.cancel(job, at_ms=3)
    [row] = ledger.rows("SELECT waiting_for, run_token, result FROM jobs")
    assert row == {"waiting_for": None, "run_token": None, "result": None}


def test_a_failed_insert_leaves_no_event(tmp_path: Path) -> None:
    """A uid is a job's own: the second of that uid is refused, with its event."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "u1", state=JobState.WAITING)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.transitions.add("u1", "again", a_spec(), at_ms=2)
    assert len(ledger.rows("SELECT * FROM events")) == 1


def test_a_retry_that_can_not_be_has_a_new_time(tmp_path: Path) -> None:
    """The row says since when it has failed now."""
    ledger = a_ledger(tmp_path)
    job = add_job(ledger, "u1", state=JobState.FAILED, at_ms=1000)
    ledger.transitions.refuse_reopen(job, ERROR, at_ms=9000)
    [row] = ledger.rows("SELECT since, finished_at FROM job_status")
    assert row["since"] == row["finished_at"] == "1970-01-01T00:00:09.000Z"
    ledger.close()


def test_a_new_job_is_what_its_row_says(tmp_path: Path) -> None:
    """Nothing is read again after a row was inserted: what is left out has the values of the table."""
    ledger = a_ledger(tmp_path)
    waiting = ledger.transitions.add("u1", "hello", a_spec(id="order"), at_ms=1, submitter="uid:7")
    queued = ledger.transitions.add_queued("u2", "hello", a_spec(priority=3), MEDIA, at_ms=2)
    refused = ledger.transitions.refuse("u3", "hello", ERROR, at_ms=3)
    for job in (waiting, queued, refused):
        assert job == read_job(ledger, job.uid)


def test_a_job_with_its_media_is_queued_by_one_row(tmp_path: Path) -> None:
    """Its events are those of a job that waited for no time, in their order."""
    ledger = a_ledger(tmp_path)
    job = ledger.transitions.add_queued("u1", "hello", a_spec(), MEDIA, at_ms=5)
    assert (job.state, job.media, job.queued_ms) == (JobState.QUEUED, MEDIA, 5)
    kinds = [kind for [kind] in ledger.db.execute("SELECT kind FROM events ORDER BY id")]
    assert kinds == ["waiting", "queued"]
    assert ledger.count(JobState.QUEUED) == 1


def test_a_retried_job_begins_its_time_anew(tmp_path: Path) -> None:
    """What a first attempt took, perhaps days ago, is no part of the time of the next one."""
    ledger = a_ledger(tmp_path)
    failed = ledger.transitions.fail(add_job(ledger, "u1", state=JobState.RUNNING, at_ms=1), ERROR, at_ms=2)
    job = ledger.transitions.reopen(failed, a_spec(), at_ms=9000)
    started = start_job(ledger, ledger.transitions.queue(job, MEDIA, at_ms=9000), "again", at_ms=9000)
    ledger.transitions.finish(started, "hello", at_ms=9500)
    [row] = ledger.rows("SELECT run_seconds FROM job_status")
    assert row["run_seconds"] == 0.5
