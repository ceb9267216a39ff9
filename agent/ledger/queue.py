"""Rows of the queue: which jobs could start, and when each submitter last had one started."""

from __future__ import annotations

from collections.abc import Sequence

from agent.jobs.queue_order import QueuedJob
from agent.ledger.sqlite import Database

READY = """
SELECT id, submitter, priority, queued_ms AS since_ms FROM (
    SELECT id, submitter, priority, queued_ms,
        row_number() OVER (PARTITION BY submitter, priority ORDER BY queued_ms, id) AS place
    FROM jobs INDEXED BY jobs_by_turn WHERE state = 'queued' AND not_before_ms <= ? {}
) WHERE place <= ?
"""


class QueueRows:
    def __init__(self, db: Database) -> None:
        self._db = db

    def list_ready(self, at_ms: int, limit: int, held: Sequence[str] = ()) -> list[QueuedJob]:
        """Return the first `limit` jobs of each submitter and priority; the first `limit` of all are among them.

        Jobs that ask for one of the engines `held` are left out.
        """
        sql = READY.format(f"AND NOT {_asks_for(held)}" if held else "")
        return [QueuedJob(*row) for row in self._db.execute(sql, [at_ms, *held, limit])]

    def count_ready(self, at_ms: int, held: Sequence[str] = ()) -> int:
        """Count the jobs that could start now, without those that ask for one of the engines `held`."""
        sql = "SELECT count(*) FROM jobs INDEXED BY jobs_by_turn WHERE state = 'queued' AND not_before_ms <= ?"
        sql += f" AND NOT {_asks_for(held)}" if held else ""
        return int(self._db.execute(sql, [at_ms, *held]).fetchone()[0])

    def served_ms(self) -> dict[str, int]:
        """Return when each submitter last had a job started; no two times are equal."""
        return dict(self._db.execute("SELECT submitter, served_ms FROM submitters").fetchall())

    def serve(self, submitter: str, at_ms: int) -> None:
        """Record that a job of the submitter is started."""
        after_all = "max(?, 1 + coalesce((SELECT max(served_ms) FROM submitters), 0))"
        self._db.execute(f"INSERT OR REPLACE INTO submitters VALUES (?, {after_all})", [submitter, at_ms])

    def set_waiting_for(self, reason: str | None, held: Sequence[str] = (), held_reason: str = "") -> None:
        """Write into every queued job what it waits for beside its turn.

        Jobs that ask for one of the engines `held` have a reason of their own.
        """
        sql = "UPDATE jobs SET waiting_for = ?1 WHERE state = 'queued' AND waiting_for IS NOT ?1"
        self._db.execute(f"{sql} AND NOT {_asks_for(held, 2)}", [reason, *held])
        if held:
            self._db.execute(f"{sql} AND {_asks_for(held, 2)}", [held_reason, *held])


def _asks_for(engines: Sequence[str], first: int = 0) -> str:
    """Return the condition that a job asks for one of the engines, with a parameter for each."""
    marks = (f"?{first + number if first else ''}" for number in range(len(engines)))
    return f"(engine_asked IN ({', '.join(marks)}))"
