"""Rows of the queue: which jobs could start, and when each submitter last had one started."""

from __future__ import annotations

from agent.jobs.queue_order import QueuedJob
from agent.ledger.sqlite import Database

READY = """
SELECT id, submitter, priority, queued_ms AS since_ms FROM (
    SELECT id, submitter, priority, queued_ms,
        row_number() OVER (PARTITION BY submitter, priority ORDER BY queued_ms, id) AS place
    FROM jobs INDEXED BY jobs_by_turn WHERE state = 'queued' AND not_before_ms <= ?
) WHERE place <= ?
"""


class QueueRows:
    def __init__(self, db: Database) -> None:
        self._db = db

    def list_ready(self, at_ms: int, limit: int) -> list[QueuedJob]:
        """Return the first `limit` jobs of each submitter and priority; the first `limit` of all are among them."""
        return [QueuedJob(*row) for row in self._db.execute(READY, [at_ms, limit])]

    def count_ready(self, at_ms: int) -> int:
        """Count the jobs that could start now."""
        sql = "SELECT count(*) FROM jobs INDEXED BY jobs_by_turn WHERE state = 'queued' AND not_before_ms <= ?"
        return int(self._db.execute(sql, [at_ms]).fetchone()[0])

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

    def set_waiting_for(self, reason: str | None) -> None:
        """Write into every queued job what it waits for beside its turn."""
        sql = "UPDATE jobs SET waiting_for = ? WHERE state = 'queued' AND waiting_for IS NOT ?"
        self._db.execute(sql, [reason, reason])
