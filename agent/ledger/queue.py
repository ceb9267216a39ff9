"""Rows of the queue: which jobs could start, and when each submitter was served last."""

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

    def ready(self, at: int, limit: int) -> list[QueuedJob]:
        """Of each submitter's jobs of each priority, the first `limit`: the first so many of all are among them."""
        return [QueuedJob(*row) for row in self._db.execute(READY, [at, limit])]

    def count(self, at: int) -> int:
        """How many jobs could start now."""
        sql = "SELECT count(*) FROM jobs INDEXED BY jobs_by_turn WHERE state = 'queued' AND not_before_ms <= ?"
        return int(self._db.execute(sql, [at]).fetchone()[0])

    def served(self) -> dict[str, int]:
        """When each submitter last had a job started, in milliseconds; no two at the same."""
        return dict(self._db.execute("SELECT submitter, served_ms FROM submitters").fetchall())

    def serve(self, submitter: str, at: int) -> None:
        after_all = "max(?, 1 + coalesce((SELECT max(served_ms) FROM submitters), 0))"
        self._db.execute(f"INSERT OR REPLACE INTO submitters VALUES (?, {after_all})", [submitter, at])

    def wait_for(self, what: str | None) -> None:
        """Tell every job of the queue what it waits for, beside its turn."""
        sql = "UPDATE jobs SET waiting_for = ? WHERE state = 'queued' AND waiting_for IS NOT ?"
        self._db.execute(sql, [what, what])
