"""The ledger: every job, attempt, event and device, in one SQLite file. The only SQL of the project is here.

One process writes (the daemon holds a lock on the state folder); everybody else opens the file read-only.
Times are milliseconds since 1970 in tables and ISO 8601 in the public views.
"""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from agent.jobs.queue_order import QueuedJob
from agent.jobs.spec import JobSpec
from agent.jobs.states import MOVES, JobState
from agent.ledger.devices import DeviceRows
from agent.ledger.queue import QueueRows
from agent.ledger.reader import LedgerError, connect
from agent.ledger.retention import RetentionRows
from agent.ledger.schema import APPLICATION_ID, SCHEMA_VERSION, migrations
from agent.ledger.snapshot import snapshot
from agent.ledger.sqlite import Database

LIVE = (JobState.WAITING, JobState.QUEUED, JobState.RUNNING)
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "trusted_schema = OFF",
    "journal_size_limit = 67108864",
)
JSON_COLUMNS = {"media", "outline", "stage_seconds", "facts"}


class DiskFull(Exception):
    """The state folder's disk took no more; what was being written is not there, and what was before it is."""


class IllegalMove(Exception):
    """A state change that the table of moves forbids, or that somebody else made first."""


@dataclass(frozen=True, slots=True)
class Job:
    """One row of `jobs`, as the daemon needs it."""

    id: int
    uid: str
    name: str
    client_id: str | None
    submitter: str
    state: JobState
    stage: str
    priority: int
    strategy: str
    engine_asked: str
    engine: str | None
    engine_reason: str | None
    spec: JobSpec | None
    media: dict[str, Any]
    outline: dict[str, Any] | None
    stage_seconds: dict[str, float]
    waiting_for: str | None
    attempt: int
    failures: int
    interruptions: int
    crashes: int
    run_token: str | None
    cancel_requested: bool
    error_code: str | None
    error_message: str | None
    error_hint: str | None
    error_retry: bool
    result: str | None
    facts: dict[str, Any] | None
    inputs: str | None
    created_ms: int
    queued_ms: int
    since_ms: int
    started_ms: int | None
    finished_ms: int | None


COLUMNS = ", ".join(Job.__slots__)


def job_of(row: Mapping[str, Any]) -> Job:
    values = {key: json.loads(row[key]) if key in JSON_COLUMNS and row[key] else row[key] for key in Job.__slots__}
    values |= {
        "state": JobState(row["state"]),
        "spec": spec_of(row["spec"]) if row["spec"] else None,
        "cancel_requested": bool(row["cancel_requested"]),
        "error_retry": bool(row["error_retry"]),
    }
    return Job(**values)


@lru_cache(maxsize=256)
def spec_of(text: str) -> JobSpec:
    """What a row asks for; a job is read several times on its way."""
    return JobSpec.model_validate_json(text)


class Ledger:
    """The one read-write connection. Methods that belong together are wrapped in `with ledger.together():`.

    `queue`, `devices` and `retention` are rows of their own: whose turn it is, how the devices are, what has grown old.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.db = Database(connect(path, read_only=False), execute_plugins=False)
        try:
            with full_disk_named():
                self._prepare(path)
        except sqlite3.DatabaseError as error:
            self.db.close()
            raise LedgerError(f"{path} can't be opened as a ledger ({error}): restore it from a backup") from error
        except (LedgerError, DiskFull):
            self.db.close()
            raise
        self.queue = QueueRows(self.db)
        self.devices = DeviceRows(self.db)
        self.retention = RetentionRows(self.db)

    def _prepare(self, path: Path) -> None:
        owner, version = self._pragma("application_id"), self._pragma("user_version")
        if owner not in (0, APPLICATION_ID):
            raise LedgerError(f"{path} belongs to another program: choose another state folder")
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"{path} was written by a newer musedrop (schema {version}, this one knows {SCHEMA_VERSION}): "
                f"install that version again, or restore {path.stem}.schema-{SCHEMA_VERSION}.db, which it left there"
            )
        if 0 < version < SCHEMA_VERSION:
            snapshot(path, path.with_name(f"{path.stem}.schema-{version}.db"))
        for pragma in PRAGMAS:
            self.db.conn.execute(f"PRAGMA {pragma}")
        migrations.apply(self.db)

    def _pragma(self, name: str) -> int:
        return int(self.db.conn.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self) -> None:
        self.db.close()

    @property
    def changes(self) -> int:
        """How many rows this connection has written so far: it differs when anything has changed."""
        return self.db.conn.total_changes

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction, one fsync."""
        with self.db.atomic():
            yield

    # jobs ------------------------------------------------------------------------------------------------------------

    def add(self, uid: str, name: str, spec: JobSpec, *, state: JobState, at: int, **columns: Any) -> None:
        """Record an accepted job."""
        asked = {
            "client_id": spec.id,
            "priority": spec.priority,
            "strategy": spec.strategy,
            "engine_asked": spec.engine,
        }
        self._insert(uid, name, state, at, {**asked, "spec": spec.model_dump_json(), **columns})

    def refuse(self, uid: str, name: str, *, at: int, **columns: Any) -> None:
        """Record a drop that is no job: it failed before it was read."""
        self._insert(uid, name, JobState.FAILED, at, {"finished_ms": at, **columns})

    def _insert(self, uid: str, name: str, state: JobState, at: int, columns: dict[str, Any]) -> None:
        row = {"uid": uid, "name": name, "state": state, "created_ms": at, "queued_ms": at, "since_ms": at, **columns}
        with self.db.atomic():
            self.db.execute(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({marks(row)})", bound(row))
            self.event(uid, str(state), at, str(columns.get("error_message", "")))

    def move(
        self, uid: str, to: JobState, *, at: int, token: str | None = None, detail: str = "", **columns: Any
    ) -> None:
        """Change a job's state, with other columns in the same statement.

        With `token` only the run that holds the claim may do it. Raises IllegalMove, and then nothing has changed.
        """
        allowed = [state for state, targets in MOVES.items() if to in targets]
        sets, values = assignments({**columns, "state": to, "since_ms": at})
        where = f"uid = ? AND state IN ({marks(allowed)})" + (" AND run_token = ?" if token else "")
        with self.db.atomic():
            cursor = self.db.execute(
                f"UPDATE jobs SET {sets} WHERE {where}",
                [*values, uid, *allowed, *([token] if token else [])],
            )
            if cursor.rowcount != 1:
                raise IllegalMove(f"job {uid} can't become {to}: it is {self.state_of(uid)}")
            self.event(uid, str(to), at, detail)

    def update(self, uid: str, **columns: Any) -> None:
        """Change columns that are not the state."""
        if "state" in columns:
            raise ValueError("move() changes states")
        sets, values = assignments(columns)
        self.db.execute(f"UPDATE jobs SET {sets} WHERE uid = ?", [*values, uid])

    def state_of(self, uid: str) -> str:
        row = self.db.execute("SELECT state FROM jobs WHERE uid = ?", [uid]).fetchone()
        return str(row[0]) if row else "unknown"

    def job(self, uid: str) -> Job | None:
        return next(iter(self._jobs("WHERE uid = ?", [uid])), None)

    def in_state(self, *states: JobState) -> list[Job]:
        return self._jobs(f"WHERE state IN ({marks(states)}) ORDER BY priority DESC, id", list(states))

    def those(self, turns: Iterable[QueuedJob]) -> list[Job]:
        """The jobs themselves, in the order given."""
        ids = [turn.id for turn in turns]
        found = {job.id: job for job in self._jobs(f"WHERE id IN ({marks(ids)})", ids)}
        return [found[id] for id in ids]

    def waiting(self, after: int, limit: int) -> list[Job]:
        """Jobs that wait for their media, beginning after a row's id."""
        return self._jobs("WHERE state = 'waiting' AND id > ? ORDER BY id LIMIT ?", [after, limit])

    def untidy(self, limit: int) -> list[Job]:
        """Finished jobs whose files have not followed yet."""
        return self._jobs("WHERE tidied = 0 AND finished_ms IS NOT NULL ORDER BY id LIMIT ?", [limit])

    def unswept(self) -> list[Job]:
        """Jobs whose media may still lie in the inbox, live ones included."""
        return self._jobs("WHERE swept = 0 ORDER BY id", [])

    def resting(self, before: int) -> bool:
        """Whether a job whose inputs are filed away, and whose media may lie in the inbox, was finished so early."""
        sql = "SELECT 1 FROM jobs WHERE swept = 0 AND inputs IS NOT NULL AND finished_ms <= ? LIMIT 1"
        return self.db.execute(sql, [before]).fetchone() is not None

    def find(self, name: str, *states: JobState) -> Job | None:
        """The newest job of that name, client id or uid, in one of the states if any are given."""
        where = f"WHERE (name = ? OR client_id = ? OR uid = ?) {f'AND state IN ({marks(states)})' if states else ''}"
        return next(iter(self._jobs(f"{where} ORDER BY id DESC LIMIT 1", [name, name, name, *states])), None)

    def unfinished_twin(self, job: Job) -> Job | None:
        """An earlier job of the same id that may still have a result."""
        where = f"WHERE client_id = ? AND id < ? AND state IN ({marks(LIVE)}) ORDER BY id LIMIT 1"
        return next(iter(self._jobs(where, [job.client_id, job.id, *LIVE])), None)

    def finished_twin(self, job: Job) -> Job | None:
        """The newest earlier job of the same id that is done."""
        where = "WHERE client_id = ? AND id < ? AND state = 'done' ORDER BY id DESC LIMIT 1"
        return next(iter(self._jobs(where, [job.client_id, job.id])), None)

    def count(self, state: JobState) -> int:
        return int(self.db.execute("SELECT count(*) FROM jobs WHERE state = ?", [state]).fetchone()[0])

    def counts(self) -> dict[str, int]:
        found = dict(self.db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {str(state): found.get(state, 0) for state in JobState}

    def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[dict[str, Any]]:
        """Rows of a public view, for status.json."""
        return list(self.db.query(sql, list(parameters)))

    def _jobs(self, where: str, parameters: list[Any]) -> list[Job]:
        return [job_of(row) for row in self.db.query(f"SELECT {COLUMNS} FROM jobs {where}", parameters)]

    # what the daemon remembers ---------------------------------------------------------------------------------------

    def remember(self, key: str, value: str | None) -> None:
        """A fact that outlives the daemon; None forgets it."""
        if value is None:
            self.db.execute("DELETE FROM meta WHERE key = ?", [key])
        else:
            self.db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", [key, value])

    def recall(self, key: str) -> str | None:
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
        return str(row[0]) if row else None

    # attempts, events, devices ---------------------------------------------------------------------------------------

    def claim(self, job: Job, token: str, *, at: int, **columns: Any) -> None:
        """queued -> running: a new attempt with its token, on disk before anything starts."""
        with self.db.atomic():
            claimed = {"run_token": token, "attempt": job.attempt + 1, "waiting_for": None, **columns}
            claimed["started_ms"] = job.started_ms or at
            self.move(job.uid, JobState.RUNNING, at=at, detail=f"attempt {job.attempt + 1}", **claimed)
            self.db.execute(
                "INSERT INTO attempts (job_id, attempt, run_token, started_ms) VALUES (?, ?, ?, ?)",
                [job.id, job.attempt + 1, token, at],
            )
            self.queue.serve(job.submitter, at)

    def interrupted(self, job: Job, cause: str, *, crash: bool) -> Job:
        """A worker was lost under the job; returns the job as it is now. `crash`: the job may be what killed it."""
        counted = replace(job, interruptions=job.interruptions + 1, crashes=job.crashes + crash)
        with self.db.atomic():
            self.update(job.uid, interruptions=counted.interruptions, crashes=counted.crashes)
            self.db.execute(
                "UPDATE attempts SET interruptions = interruptions + 1, cause = ? WHERE run_token = ?",
                [cause, job.run_token],
            )
        return counted

    def end_attempt(self, token: str, outcome: str, *, at: int, code: str = "", message: str = "") -> None:
        self.db.execute(
            "UPDATE attempts SET ended_ms = ?, outcome = ?, error_code = nullif(?, ''), error_message = nullif(?, '')"
            " WHERE run_token = ? AND ended_ms IS NULL",
            [at, outcome, code, message, token],
        )

    def event(self, uid: str | None, kind: str, at: int, detail: str = "", device: str | None = None) -> None:
        self.db.execute(
            "INSERT INTO events (job_id, at_ms, kind, device, detail)"
            " VALUES ((SELECT id FROM jobs WHERE uid = ?), ?, ?, ?, ?)",
            [uid, at, kind, device, detail],
        )


@contextmanager
def full_disk_named() -> Iterator[None]:
    """Turn what SQLite and the file system say of a full disk into DiskFull."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise DiskFull(str(error)) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)) from error


def assignments(columns: Mapping[str, Any]) -> tuple[str, list[Any]]:
    return ", ".join(f"{key} = ?" for key in columns), bound(columns)


def bound(columns: Mapping[str, Any]) -> list[Any]:
    """The values of columns as SQLite takes them."""
    return [json.dumps(value) if key in JSON_COLUMNS and value is not None else value for key, value in columns.items()]


def marks(values: Iterable[Any]) -> str:
    return ", ".join("?" for _ in values)
