"""Rows that are old enough to be deleted, and the folders that the other rows still need."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from agent.ledger.job import placeholders
from agent.ledger.places import NOWHERE, Places
from agent.ledger.sqlite import Database
from agent.ledger.views import DRAFT_KEY, DRAFT_UIDS, format_iso

FILED = """+state IN ('done', 'failed', 'cancelled') AND tidied = 1 AND swept = 1
    AND id NOT IN (SELECT job_id FROM devices WHERE job_id IS NOT NULL)"""
"""Most rows of a large ledger: `+` keeps SQLite from the index of states, which would read them all."""
OLD = f"""
SELECT id FROM jobs
WHERE {format_iso("finished_ms")} < {format_iso(":before")} AND {FILED}
ORDER BY {format_iso("finished_ms")} LIMIT :limit
"""
"""Found by the index of finished_at, so that a round reads what it deletes."""

OPEN = """
SELECT uid, inputs, media FROM jobs WHERE tidied = 0 OR swept = 0
UNION SELECT uid, inputs, media FROM jobs WHERE state IN ('waiting', 'queued', 'running')
"""
"""Jobs that are not finished, or whose files have not followed their rows."""


@dataclass(frozen=True, slots=True)
class NeededFiles:
    """The uids of jobs, and the sorted paths of their inputs and media."""

    uids: set[str]
    paths: list[str]

    def has_below(self, folder: str) -> bool:
        """Whether one of the paths is that folder, or is below it."""
        below = f"{folder}/"
        return self._first_from(folder) == folder or self._first_from(below).startswith(below)

    def _first_from(self, start: str) -> str:
        place = bisect_left(self.paths, start)
        return self.paths[place] if place < len(self.paths) else ""


class RetentionRows:
    def __init__(self, db: Database, places: Places = NOWHERE) -> None:
        self._db, self._places = db, places

    def delete_old(self, before_ms: int, limit: int) -> int:
        """Delete at most `limit` jobs that ended before a time, with attempts and events; return how many."""
        ids = [row[0] for row in self._db.execute(OLD, {"before": before_ms, "limit": limit})]
        with self._db.atomic():
            self._delete(ids)
            self._db.execute("DELETE FROM events WHERE job_id IS NULL AND at_ms < ?", [before_ms])
        return len(ids)

    def _delete(self, ids: list[int]) -> None:
        for table, column in (("attempts", "job_id"), ("events", "job_id"), ("jobs", "id")) if ids else ():
            self._db.execute(f"DELETE FROM {table} WHERE {column} IN ({placeholders(ids)})", ids)

    def note_draft(self, uid: str) -> None:
        """Remember that a job is a draft."""
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, '')", [DRAFT_KEY + uid])

    def list_ended_drafts(self, before_ms: int) -> list[str]:
        """Return the drafts that ended before a time, and whose files have followed them."""
        sql = f"SELECT uid FROM jobs WHERE uid IN ({DRAFT_UIDS}) AND {FILED} AND finished_ms < ?"
        return [row[0] for row in self._db.execute(sql, [before_ms])]

    def delete_draft(self, job_id: int, uid: str) -> None:
        with self._db.atomic():
            self._delete([job_id])
            self._db.execute("DELETE FROM meta WHERE key = ?", [DRAFT_KEY + uid])

    def find_needed(self) -> NeededFiles:
        """Return what jobs with something left to do need."""
        rows = self._db.execute(OPEN).fetchall()
        paths = {self._places.expand(path) for _, inputs, media in rows for path in _paths(inputs, media)}
        return NeededFiles({row[0] for row in rows}, sorted(paths))


def _paths(inputs: str | None, media: str) -> Iterator[str]:
    if inputs:
        yield inputs
    yield from (medium["path"] for medium in json.loads(media).values())
