"""The ledger: every job, attempt, event and device, in one SQLite file. The only SQL of the project is in this folder.

The daemon alone writes, since it holds a lock on the state folder; all others open the file read-only.
Times are milliseconds since 1970 in tables and ISO 8601 in the public views.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.fs import Fingerprint, take_fingerprint
from agent.jobs.queue_order import QueuedJob
from agent.jobs.states import LIVE, JobState
from agent.ledger.devices import DeviceRows
from agent.ledger.disk_full import DiskFull, raise_disk_full
from agent.ledger.job import JOB_COLUMNS, Job, MediaUser, assignments, placeholders, read_job, read_marks, write_json
from agent.ledger.places import NOWHERE, Places
from agent.ledger.queue import QueueRows
from agent.ledger.reader import APPLICATION_ID, LedgerError, connect, name_damage
from agent.ledger.retention import OPEN, RetentionRows
from agent.ledger.schema import SCHEMA_VERSION, migrations
from agent.ledger.snapshot import copy_ledger
from agent.ledger.sqlite import Database
from agent.ledger.transitions import OWNED, Transitions

RELATIVE_SINCE = 2
"""The schema whose rows hold relative paths."""
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "trusted_schema = OFF",
    "journal_size_limit = 67108864",
    "cache_size = -32768",  # a turn that takes hundreds of jobs in writes each page once
)


class Ledger:
    """The one read-write connection. Calls that belong together are wrapped in `with ledger.together():`.

    transitions  changes of a job's state
    queue        whose turn it is
    devices      the state of the devices, and which of them people have drained
    retention    rows that are old enough to be deleted
    """

    def __init__(self, path: Path, places: Places = NOWHERE) -> None:
        """`places`: the folders that paths in rows are relative to."""
        self._places = places
        path.parent.mkdir(parents=True, exist_ok=True)
        self.db = Database(connect(path, read_only=False), execute_plugins=False)
        try:
            with raise_disk_full(), name_damage(path):
                self._prepare(path)
        except sqlite3.DatabaseError as error:
            self.db.close()
            raise LedgerError(f"{path} can't be opened as a ledger ({error}): restore it from a backup") from error
        except (LedgerError, DiskFull):
            self.db.close()
            raise
        self.queue = QueueRows(self.db)
        self.devices = DeviceRows(self.db)
        self.retention = RetentionRows(self.db, places)
        self.transitions = Transitions(self.db, self.queue, places)

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
            copy_ledger(path, path.with_name(f"{path.stem}.schema-{version}.db"))
        for pragma in PRAGMAS:
            self.db.conn.execute(f"PRAGMA {pragma}")
        with self.db.atomic():  # readers see a new ledger with all its views, or none
            migrations.apply(self.db)
            if version < RELATIVE_SINCE:
                self._shorten_paths()

    def _shorten_paths(self) -> None:
        """Make the paths of an earlier schema relative; media are needed only while a job is not done with them."""
        for prefix, name in self._places.spellings():
            sql = "UPDATE jobs SET inputs = ? || substr(inputs, ?) WHERE substr(inputs, 1, ?) = ?"
            self.db.execute(sql, [name, len(prefix) + 1, len(prefix), prefix])
        for uid, inputs, media in self.db.execute(f"SELECT uid, inputs, media FROM ({OPEN})").fetchall():
            self.update(uid, inputs=inputs, media=json.loads(media))

    def _pragma(self, name: str) -> int:
        return int(self.db.conn.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self) -> None:
        self.db.close()

    @property
    def changes(self) -> int:
        """How many rows this connection has written so far, to see whether anything has changed."""
        return self.db.conn.total_changes

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction, one fsync."""
        with self.db.atomic():
            yield

    # jobs ------------------------------------------------------------------------------------------------------------

    def update(self, uid: str, **columns: Any) -> None:
        """Change columns that do not belong to the state. Raises ValueError for those that do."""
        if owned := OWNED & columns.keys():
            raise ValueError(f"only transitions change {', '.join(sorted(owned))}")
        sets, values = assignments(columns, self._places)
        self.db.execute(f"UPDATE jobs SET {sets} WHERE uid = ?", [*values, uid])

    def update_and_read(self, uid: str, **columns: Any) -> Job:
        """Change columns as `update` does, and return the job as it is then."""
        with self.together():
            self.update(uid, **columns)
            [job] = self._jobs("WHERE uid = ?", [uid])
        return job

    def state_of(self, uid: str) -> str:
        row = self.db.execute("SELECT state FROM jobs WHERE uid = ?", [uid]).fetchone()
        return str(row[0]) if row else "unknown"

    def job(self, uid: str) -> Job | None:
        return next(iter(self._jobs("WHERE uid = ?", [uid])), None)

    def list_in_state(self, *states: JobState) -> list[Job]:
        return self._jobs(f"WHERE state IN ({placeholders(states)}) ORDER BY priority DESC, id", list(states))

    def list_by_turn(self, turns: Iterable[QueuedJob]) -> list[Job]:
        """Return the jobs themselves, in the order given."""
        ids = [turn.id for turn in turns]
        found = {job.id: job for job in self._jobs(f"WHERE id IN ({placeholders(ids)})", ids)} if ids else {}
        return [found[id] for id in ids]

    def list_waiting(self, after_id: int, limit: int) -> list[Job]:
        """Return jobs that wait for their media, beginning after a row's id."""
        return self._jobs("WHERE state = 'waiting' AND id > ? ORDER BY id LIMIT ?", [after_id, limit])

    def list_unarchived(self, limit: int) -> list[Job]:
        """Return finished jobs whose files have not followed yet."""
        return self._jobs("WHERE tidied = 0 AND finished_ms IS NOT NULL ORDER BY id LIMIT ?", [limit])

    def list_with_first_part(self) -> set[str]:
        """Return the jobs whose first part may be in the outbox."""
        return {uid for (uid,) in self.db.execute("SELECT uid FROM jobs WHERE first_part IS NOT NULL")}

    def list_ended_with_first_part(self) -> list[tuple[str, str]]:
        """Return (uid, first part) of those that have ended."""
        sql = "SELECT uid, first_part FROM jobs WHERE first_part IS NOT NULL AND finished_ms IS NOT NULL"
        return [(uid, name) for uid, name in self.db.execute(sql)]

    def list_with_media(self) -> list[Job]:
        """Return jobs whose media may be in the inbox, live ones included."""
        return self._jobs("WHERE swept = 0 ORDER BY id", [])

    def list_media_users(self) -> list[MediaUser]:
        """Return the same jobs, read as far as their media: there may be ten thousand, and it is asked often."""
        sql = "SELECT uid, iif(inputs IS NULL, NULL, finished_ms), media FROM jobs WHERE swept = 0 ORDER BY id"
        return [MediaUser(uid, filed_ms, read_marks(media)) for uid, filed_ms, media in self.db.execute(sql)]

    def list_media_in_use(self) -> set[Fingerprint]:
        """Return the fingerprints of media that may be in the inbox and belong to jobs."""
        sql = "SELECT DISTINCT media FROM jobs WHERE swept = 0 AND media <> '{}'"
        return {mark for [media] in self.db.execute(sql) for mark in read_marks(media)}

    def note_moved_medium(self, old: Path, new: Path) -> None:
        """Say in the rows of all ended jobs that used a medium of the inbox where it is now."""
        mark = take_fingerprint(new)
        if mark is None:
            return
        named = [{"path": self._places.shorten(str(path)), **asdict(mark)} for path in (old, new)]
        before, after = (write_json(one)[1:-1] for one in named)
        sql = "UPDATE jobs SET media = replace(media, ?, ?)"
        sql += " WHERE swept = 0 AND finished_ms IS NOT NULL AND instr(media, ?)"
        self.db.execute(sql, [before, after, before])

    def has_collectable(self, before_ms: int) -> bool:
        """Whether a job has ended by then whose inputs are archived, and whose media may be in the inbox."""
        sql = "SELECT 1 FROM jobs WHERE swept = 0 AND inputs IS NOT NULL AND finished_ms <= ? LIMIT 1"
        return self.db.execute(sql, [before_ms]).fetchone() is not None

    def find(self, name: str, *states: JobState) -> Job | None:
        """Return the newest job of that name, client id or uid, in one of the states if any are given."""
        newest = " UNION ALL ".join(
            f"SELECT max(id) AS id FROM jobs WHERE {column} = :name AND state = '{JobState(state)}'"
            for column in ("name", "client_id", "uid")
            for state in states or JobState
        )
        return next(iter(self._jobs(f"WHERE id = (SELECT max(id) FROM ({newest}))", {"name": name})), None)

    def find_live_duplicate(self, job: Job) -> Job | None:
        """Return an earlier job of the same id that has not ended."""
        where = f"WHERE client_id = ? AND id < ? AND state IN ({placeholders(LIVE)}) ORDER BY id LIMIT 1"
        return next(iter(self._jobs(where, [job.client_id, job.id, *LIVE])), None)

    def find_done_duplicate(self, job: Job) -> Job | None:
        """Return the newest other job of the same id that is done."""
        where = "WHERE client_id = ? AND id <> ? AND state = 'done' ORDER BY id DESC LIMIT 1"
        return next(iter(self._jobs(where, [job.client_id, job.id])), None)

    def has_ended_before(self, job: Job) -> bool:
        """Whether the job had failed or was cancelled, and is tried again."""
        sql = "SELECT 1 FROM events WHERE job_id = ? AND kind IN ('failed', 'cancelled') LIMIT 1"
        return self.db.execute(sql, [job.id]).fetchone() is not None

    def count(self, state: JobState) -> int:
        return self.counts()[state]

    def counts(self) -> dict[str, int]:
        found = dict(self.db.execute("SELECT state, jobs FROM job_counts").fetchall())
        return {str(state): found[state] for state in JobState}

    def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a public view, for status.json."""
        return list(self.db.query(sql, list(parameters)))

    def _jobs(self, where: str, parameters: list[Any] | dict[str, Any]) -> list[Job]:
        return [
            read_job(row, self._places)
            for row in self.db.execute(f"SELECT {JOB_COLUMNS} FROM jobs {where}", parameters)
        ]

    # what the daemon remembers ---------------------------------------------------------------------------------------

    def remember(self, key: str, value: str | None) -> None:
        """Keep a value for later starts; None deletes it."""
        if value is None:
            self.db.execute("DELETE FROM meta WHERE key = ?", [key])
        else:
            self.db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", [key, value])

    def recall(self, key: str) -> str | None:
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
        return str(row[0]) if row else None

    def recall_object(self, key: str) -> dict[str, Any]:
        """Return what was remembered as JSON, {} for nothing. Raises LedgerError where it is damaged."""
        try:
            return dict(json.loads(self.recall(key) or "{}"))
        except (ValueError, TypeError) as error:
            raise LedgerError(f"what the ledger remembers as {key} is damaged: restore it from a backup") from error

    # events ----------------------------------------------------------------------------------------------------------

    def record_event(self, uid: str | None, kind: str, at_ms: int, detail: str = "", device: str | None = None) -> None:
        """Add an event of a job, or of none, that is not a change of state."""
        self.db.execute(
            "INSERT INTO events (job_id, at_ms, kind, device, detail)"
            " VALUES ((SELECT id FROM jobs WHERE uid = ?), ?, ?, ?, ?)",
            [uid, at_ms, kind, device, detail],
        )
