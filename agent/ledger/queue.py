"""Rows of the queue: which jobs could start, and when each submitter last had one started.

Each query reads the first jobs of every submitter and priority, and not the thousands behind them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agent.jobs.queue_order import QueuedJob
from agent.ledger.reader import Rows
from agent.ledger.views import QUEUE, QUEUE_REASON


def name_first(name: str, state: str, only: str = "TRUE") -> str:
    """Return two common table expressions: `name` holds the ids of the first jobs of each submitter and priority.

    `only` is a condition for each job.
    Parameters of the query: :limit jobs of each; queued ones only if they may start at :at.
    """
    rows = f"jobs WHERE finished_ms IS NULL AND state = '{state}'"
    return f"""
{name}_groups (submitter, priority) AS (
    SELECT * FROM (SELECT submitter, priority FROM {rows} ORDER BY submitter, priority LIMIT 1)
    UNION ALL
    SELECT n.submitter, n.priority FROM {name}_groups g JOIN jobs n ON n.id = (
        SELECT id FROM {rows} AND (submitter, priority) > (g.submitter, g.priority)
        ORDER BY submitter, priority LIMIT 1)
),
{name} (id) AS (
    SELECT j.id FROM {name}_groups g JOIN jobs j ON j.id IN (
        SELECT id FROM {rows} AND submitter = g.submitter AND priority = g.priority AND not_before_ms <= :at AND {only}
        ORDER BY queued_ms, id LIMIT :limit)
)"""


DELAYED = "jobs INDEXED BY jobs_delayed WHERE state = 'queued' AND not_before_ms > 0 AND not_before_ms > :at"
READY = """
WITH RECURSIVE {}
SELECT id, submitter, priority, queued_ms FROM first JOIN jobs USING (id)
"""
NOT_HELD = "engine_asked NOT IN (SELECT value FROM json_each(:held))"
FIRST = QUEUE.format(
    ctes=f"""RECURSIVE {name_first("first_queued", "queued")}, {name_first("first_waiting", "waiting")},
firsts (id) AS (
    SELECT id FROM first_queued UNION ALL SELECT id FROM first_waiting
    UNION ALL SELECT id FROM {DELAYED}
),""",
    source="firsts JOIN jobs USING (id)",
    only="TRUE",
)


class QueueRows:
    def __init__(self, db: Rows) -> None:
        self._db = db

    def list_ready(self, at_ms: int, limit: int, held: Sequence[str] = ()) -> list[QueuedJob]:
        """Return the first `limit` jobs of each submitter and priority; the first `limit` of all are among them.

        Jobs that ask for one of the engines `held` are left out.
        """
        sql = READY.format(name_first("first", "queued", NOT_HELD if held else "TRUE"))
        given = {"at": at_ms, "limit": limit, "held": json.dumps(held)}
        return [QueuedJob(*row) for row in self._db.execute(sql, given)]

    def list_first(self, at_ms: int, limit: int) -> list[dict[str, Any]]:
        """Return the first rows of the view `queue`, however many there are."""
        return list(self._db.query(f"{FIRST} ORDER BY position LIMIT :limit", {"at": at_ms, "limit": limit}))

    def count_ready(self, at_ms: int, held: Sequence[str] = ()) -> int:
        """Count the jobs that could start now, without those that ask for one of the engines `held`."""
        if held:
            sql = f"SELECT count(*) FROM jobs WHERE state = 'queued' AND not_before_ms <= :at AND {NOT_HELD}"
            return int(self._db.execute(sql, {"at": at_ms, "held": json.dumps(held)}).fetchone()[0])
        sql = f"SELECT jobs - (SELECT count(*) FROM {DELAYED}) FROM state_counts WHERE state = 'queued'"
        return int(self._db.execute(sql, {"at": at_ms}).fetchone()[0])

    def highest_priority(self) -> int:
        """Return the highest priority of the jobs that have not ended, 0 where none is above."""
        return max(0, self._db.execute("SELECT max(priority) FROM jobs WHERE finished_ms IS NULL").fetchone()[0] or 0)

    def list_unstarted_with(self, avatar: str) -> list[str]:
        """Return the names of the jobs that use this avatar of the library, in any case, and have not been started."""
        sql = (
            "SELECT name FROM jobs WHERE finished_ms IS NULL AND state IN ('waiting', 'queued') AND"
            " coalesce(json_extract(spec, '$.template'), json_extract(spec, '$.avatar')) = ? COLLATE NOCASE ORDER BY id"
        )
        return [str(row[0]) for row in self._db.execute(sql, [avatar])]

    def served_ms(self) -> dict[str, int]:
        """Return when each submitter last had a job started; no two times are equal."""
        return dict(self._db.execute("SELECT submitter, served_ms FROM submitters").fetchall())

    def serve(self, submitter: str, at_ms: int) -> None:
        """Record that a job of the submitter is started."""
        after_all = "max(?, 1 + coalesce((SELECT max(served_ms) FROM submitters), 0))"
        self._db.execute(f"INSERT OR REPLACE INTO submitters VALUES (?, {after_all})", [submitter, at_ms])

    def move_times(self, by_ms: int) -> None:
        """Keep the ages and pauses of unfinished jobs when the calendar was set by so much."""
        self._db.execute(
            "UPDATE jobs SET queued_ms = queued_ms + ?, not_before_ms = iif(not_before_ms, not_before_ms + ?, 0)"
            " WHERE state IN ('waiting', 'queued', 'running')",
            [by_ms, by_ms],
        )

    def bound_pauses(self, until_ms: int) -> None:
        """Let no job rest longer than until then."""
        sql = "UPDATE jobs SET not_before_ms = ? WHERE state = 'queued' AND not_before_ms > ?"
        self._db.execute(sql, [until_ms, until_ms])

    def set_waiting_for(self, reason: str | None, held: Mapping[str, str] | None = None) -> None:
        """Say what all queued jobs wait for beside their turn, None if it is for nothing.

        `held` adds what those wait for that ask for an engine.
        """
        wanted = {f"{QUEUE_REASON}:{engine}": why for engine, why in (held or {}).items()}
        wanted |= {QUEUE_REASON: reason} if reason is not None else {}
        known = dict(self._db.execute("SELECT key, value FROM meta WHERE key GLOB ?", [f"{QUEUE_REASON}*"]).fetchall())
        for key in known.keys() - wanted.keys():
            self._db.execute("DELETE FROM meta WHERE key = ?", [key])
        for key, value in wanted.items() - known.items():
            self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", [key, value])
