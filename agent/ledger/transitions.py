"""Every change of a job's state, each with all columns, the attempt and the event that belong to it.

No other module writes `state`, or one of the columns that are listed in `OWNED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.jobs.spec import JobSpec
from agent.jobs.states import MOVES, JobState
from agent.ledger.job import (
    JOB_COLUMNS,
    Job,
    JobError,
    assignments,
    change_job,
    column_values,
    make_job,
    placeholders,
    read_job,
)
from agent.ledger.places import NOWHERE, Places
from agent.ledger.queue import QueueRows
from agent.ledger.sqlite import Database

UNCLAIMED: dict[str, Any] = {"run_token": None, "device": None, "waiting_for": None, "not_before_ms": 0}
"""No attempt holds the job, and it waits for nothing but its turn."""
UNPUBLISHED: dict[str, Any] = {"result": None, "facts": None}
"""There is no result."""
NO_ERROR: dict[str, Any] = dict.fromkeys(("error_code", "error_message", "error_hint", "error_retry"))
UNFINISHED: dict[str, Any] = {"finished_ms": None, "inputs": None, "tidied": 0, "swept": 0}
"""The job has not ended, and none of its files has followed it."""
NOT_INSPECTED: dict[str, Any] = {
    **dict.fromkeys(("engine", "engine_reason", "outline", "frames", "duration_s", "animated")),
    **{"stage": "inspect", "stage_seconds": {}, "units_done": 0, "units_total": 0, "media": {}},
}
"""Nothing is known of the media, and nothing was made of them."""
FOUND = "found on the share: the ledger was older"
COUNTERS: dict[str, Any] = dict.fromkeys(("failures", "interruptions", "crashes", "cancel_requested"), 0)

OWNED = {"state", "since_ms", "queued_ms", "started_ms", "run_token", "attempt", "finished_ms", "not_before_ms"} | {
    *NO_ERROR,
    *COUNTERS,
}
"""Columns that change here only."""


class IllegalMove(Exception):
    """The table of moves forbids the change of state, or the job was no longer in the state it was read in."""


class Transitions:
    """The moves of jobs between states. Each returns the job as it is then, or raises IllegalMove and changes nothing.

    `at_ms` is the time of the change, in milliseconds since 1970.
    """

    def __init__(self, db: Database, queue: QueueRows, places: Places = NOWHERE) -> None:
        self._db, self._queue, self._places = db, queue, places

    # into the table --------------------------------------------------------------------------------------------------

    def add(self, uid: str, name: str, spec: JobSpec, *, at_ms: int, **columns: Any) -> Job:
        """Record an accepted job, which waits for its media."""
        asked = {**_asked_columns(spec), **columns}
        return self._insert(uid, name, JobState.WAITING, at_ms, asked)

    def add_queued(
        self, uid: str, name: str, spec: JobSpec, media: Mapping[str, Any], *, at_ms: int, **columns: Any
    ) -> Job:
        """Record an accepted job whose media are complete: it has waited for them for no time."""
        asked = {**_asked_columns(spec), "media": media, **columns}
        with self._db.atomic():
            job = self._insert_row(uid, name, JobState.QUEUED, at_ms, asked)
            for state in (JobState.WAITING, JobState.QUEUED):
                self._record(job.id, state, at_ms, "")
        return job

    def refuse(self, uid: str, name: str, error: JobError, *, at_ms: int, **columns: Any) -> Job:
        """Record a submission that can't be read as a job: it has failed from the start."""
        failed = {"finished_ms": at_ms, **error.columns(), **columns}
        return self._insert(uid, name, JobState.FAILED, at_ms, failed, error.message)

    # on the way ------------------------------------------------------------------------------------------------------

    def queue(self, job: Job, media: Mapping[str, Any], *, at_ms: int) -> Job:
        """waiting -> queued: its media are complete."""
        return self._move(job, JobState.QUEUED, at_ms, {"media": media, "waiting_for": None, "queued_ms": at_ms})

    def start(self, job: Job, token: str, *, stage: str, engine: str, engine_reason: str, at_ms: int) -> Job:
        """queued -> running: a new attempt, which holds the job by its token."""
        attempt = job.attempt + 1
        columns = {**UNCLAIMED, "run_token": token, "attempt": attempt, "started_ms": job.started_ms or at_ms}
        columns |= {"stage": stage, "engine": engine, "engine_reason": engine_reason, "units_done": 0}
        with self._db.atomic():
            started = self._move(job, JobState.RUNNING, at_ms, columns, f"attempt {attempt}")
            self._db.execute(
                "INSERT INTO attempts (job_id, attempt, run_token, started_ms) VALUES (?, ?, ?, ?)",
                [job.id, attempt, token, at_ms],
            )
            self._queue.serve(job.submitter, at_ms)
        return started

    def requeue(self, job: Job, why: str, *, at_ms: int) -> Job:
        """running -> queued, in its old place: the attempt was cut off, which is not counted against the job."""
        stage = "assemble" if job.stage == "publish" else job.stage
        return self._requeue(job, why, at_ms, {"stage": stage})

    def requeue_last(self, job: Job, why: str, *, at_ms: int) -> Job:
        """running -> queued, as if it had come now: its media broke a worker, and the others go first."""
        return self._requeue(job, why, at_ms, {"queued_ms": at_ms})

    def _requeue(self, job: Job, why: str, at_ms: int, columns: dict[str, Any]) -> Job:
        with self._db.atomic():
            moved = self._move(job, JobState.QUEUED, at_ms, {**UNCLAIMED, **UNPUBLISHED, **columns}, why)
            self._end_attempt(job, "interrupted", at_ms, message=why)
        return moved

    def retry_later(self, job: Job, error: JobError, *, delay_s: float, at_ms: int) -> Job:
        """running -> queued: the attempt has failed, and the next one may start when the delay is over."""
        columns = {**UNCLAIMED, **UNPUBLISHED, "failures": job.failures + 1}
        columns |= {"not_before_ms": at_ms + int(1000 * delay_s)}
        columns |= {"waiting_for": f"a second try in {delay_s:.0f} s, after: {error.message}"}
        with self._db.atomic():
            moved = self._move(job, JobState.QUEUED, at_ms, columns, error.message)
            self._end_attempt(job, "failed", at_ms, error.code, error.message)
        return moved

    def postpone(self, job: Job, why: str, *, delay_s: float, at_ms: int) -> None:
        """Let a queued job wait for a while, for a reason that is not its own; it keeps its place."""
        self._db.execute(
            "UPDATE jobs SET not_before_ms = ?, waiting_for = ? WHERE uid = ? AND state = 'queued'",
            [at_ms + int(1000 * delay_s), why, job.uid],
        )

    def record_interruption(self, job: Job, cause: str, *, crash: bool) -> Job:
        """Count a worker that was lost under a running job. `crash`: the job may have caused it."""
        counted = replace(job, interruptions=job.interruptions + 1, crashes=job.crashes + crash)
        with self._db.atomic():
            self._db.execute(
                "UPDATE jobs SET interruptions = ?, crashes = ? WHERE uid = ?",
                [counted.interruptions, counted.crashes, job.uid],
            )
            self._db.execute(
                "UPDATE attempts SET interruptions = interruptions + 1, cause = ? WHERE run_token = ?",
                [cause, job.run_token],
            )
        return counted

    def request_cancel(self, job: Job) -> None:
        """Note on disk that the job is to be cancelled, so that a crash does not lose the request."""
        self._db.execute("UPDATE jobs SET cancel_requested = 1 WHERE uid = ?", [job.uid])

    # ends ------------------------------------------------------------------------------------------------------------

    def finish(self, job: Job, result: str, *, at_ms: int) -> Job:
        """running -> done: the result is in the outbox under that name."""
        columns = {**UNCLAIMED, "result": result, "finished_ms": at_ms, "cancel_requested": 0}
        with self._db.atomic():
            moved = self._move(job, JobState.DONE, at_ms, columns)
            self._end_attempt(job, "done", at_ms)
        return moved

    def fail(self, job: Job, error: JobError, *, at_ms: int) -> Job:
        """Waiting, queued or running -> failed."""
        columns = {**UNCLAIMED, **UNPUBLISHED, **error.columns(), "finished_ms": at_ms, "cancel_requested": 0}
        with self._db.atomic():
            moved = self._move(job, JobState.FAILED, at_ms, columns, error.message)
            self._end_attempt(job, "failed", at_ms, error.code, error.message)
        return moved

    def cancel(self, job: Job, *, at_ms: int) -> Job:
        """Waiting, queued or running -> cancelled."""
        with self._db.atomic():
            columns = {**UNCLAIMED, **UNPUBLISHED, "finished_ms": at_ms, "cancel_requested": 1}
            moved = self._move(job, JobState.CANCELLED, at_ms, columns)
            self._end_attempt(job, "cancelled", at_ms)
        return moved

    def reopen(self, job: Job, spec: JobSpec, *, at_ms: int) -> Job:
        """Failed or cancelled -> waiting: the job starts over, as `spec` asks now."""
        columns = {**UNCLAIMED, **UNPUBLISHED, **NO_ERROR, **UNFINISHED, **NOT_INSPECTED, **COUNTERS}
        columns |= {**_asked_columns(spec), "started_ms": None}
        return self._move(job, JobState.WAITING, at_ms, columns, "tried again")

    def refuse_reopen(self, job: Job, error: JobError, *, at_ms: int) -> None:
        """Give a failed or cancelled job a new error, since it can't start over; its files follow once more."""
        ended = {"finished_ms": at_ms, "since_ms": at_ms}
        sets, values = assignments({**error.columns(), "tidied": 0, "inputs": None, **ended})
        self._db.execute(f"UPDATE jobs SET {sets} WHERE uid = ?", [*values, job.uid])

    def record_outcome(self, uid: str, state: JobState, columns: Mapping[str, Any], *, at_ms: int) -> None:
        """Write the end of a job that this ledger missed, since it was restored from a backup: any state -> `state`."""
        cleared = {**UNCLAIMED, **UNPUBLISHED, **NO_ERROR, "cancel_requested": int(state is JobState.CANCELLED)}
        row = {**cleared, "finished_ms": at_ms, **columns, "state": state, "since_ms": at_ms}
        if state is JobState.DONE:
            row["stage"] = "publish"
        with self._db.atomic():
            found = self._db.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE uid = ?", [uid]).fetchone()
            if found is None:
                self._insert(uid, row.pop("name"), state, row.pop("created_ms"), row, FOUND)
                return
            job = read_job(found, self._places)
            self._end_attempt(job, str(state), at_ms)
            known = {"name", "client_id", "spec", "created_ms"}
            sets, values = assignments({key: row[key] for key in row.keys() - known}, self._places)
            self._db.execute(f"UPDATE jobs SET {sets} WHERE uid = ?", [*values, uid])
            self._record(job.id, state, at_ms, FOUND)

    # rows ------------------------------------------------------------------------------------------------------------

    def _insert(
        self, uid: str, name: str, state: JobState, at_ms: int, columns: dict[str, Any], detail: str = ""
    ) -> Job:
        with self._db.atomic():
            job = self._insert_row(uid, name, state, at_ms, columns)
            self._record(job.id, state, at_ms, detail)
        return job

    def _insert_row(self, uid: str, name: str, state: JobState, at_ms: int, columns: dict[str, Any]) -> Job:
        row = {"uid": uid, "name": name, "state": state, **columns}
        row = {"created_ms": at_ms, "queued_ms": at_ms, "since_ms": at_ms, **row}
        sql = f"INSERT INTO jobs ({', '.join(row)}) VALUES ({placeholders(row)})"
        return make_job({**row, "id": self._db.execute(sql, column_values(row, self._places)).lastrowid})

    def _move(self, job: Job, to: JobState, at_ms: int, columns: dict[str, Any], detail: str = "") -> Job:
        """Change the state and its columns in one statement; a running job only if its attempt still holds it."""
        allowed = [state for state, targets in MOVES.items() if to in targets]
        changed = {**columns, "state": to, "since_ms": at_ms}
        sets, values = assignments(changed, self._places)
        held = [job.run_token] if job.state is JobState.RUNNING else []
        where = f"uid = ? AND state IN ({placeholders(allowed)})" + (" AND run_token IS ?" if held else "")
        sql = f"UPDATE jobs SET {sets} WHERE {where}"
        with self._db.atomic():
            if not self._db.execute(sql, [*values, job.uid, *allowed, *held]).rowcount:
                raise IllegalMove(f"job {job.uid} can't become {to}: it is {self._state_of(job)}")
            moved = change_job(job, changed)
            self._record(job.id, to, at_ms, detail)
        return moved

    def _state_of(self, job: Job) -> str:
        row = self._db.execute("SELECT state FROM jobs WHERE uid = ?", [job.uid]).fetchone()
        return str(row[0]) if row else "unknown"

    def _end_attempt(self, job: Job, outcome: str, at_ms: int, code: str = "", message: str = "") -> None:
        if job.run_token:
            self._db.execute(
                "UPDATE attempts SET ended_ms = ?, outcome = ?, error_code = nullif(?, ''),"
                " error_message = nullif(?, '') WHERE run_token = ? AND ended_ms IS NULL",
                [at_ms, outcome, code, message, job.run_token],
            )

    def _record(self, job_id: int, state: JobState, at_ms: int, detail: str) -> None:
        self._db.execute(
            "INSERT INTO events (job_id, at_ms, kind, detail) VALUES (?, ?, ?, ?)",
            [job_id, at_ms, str(state), detail],
        )


def _asked_columns(spec: JobSpec) -> dict[str, Any]:
    return {
        "client_id": spec.id,
        "priority": spec.priority,
        "strategy": spec.strategy,
        "engine_asked": spec.engine,
        "spec": spec,
    }
