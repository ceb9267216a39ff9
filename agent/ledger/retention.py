"""Rows that have grown old: which may go, and what is still needed of the folders that rows name."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from agent.ledger.sqlite import Database

OLD = """
SELECT id FROM jobs
WHERE id < coalesce((SELECT id FROM jobs WHERE created_ms >= :before ORDER BY id LIMIT 1), 9e18)
    AND state IN ('done', 'failed', 'cancelled') AND finished_ms < :before AND tidied = 1 AND swept = 1
    AND id NOT IN (SELECT job_id FROM devices WHERE job_id IS NOT NULL)
ORDER BY id LIMIT :limit
"""
"""Ids grow with time: the search ends at the first row that is too young, however many follow."""

OPEN = """
SELECT uid, inputs, media FROM jobs WHERE tidied = 0 OR swept = 0
UNION SELECT uid, inputs, media FROM jobs WHERE state IN ('waiting', 'queued', 'running')
"""
"""Jobs that are not finished, or whose files have not followed their rows yet."""


@dataclass(frozen=True, slots=True)
class Needed:
    """Jobs by uid, and the paths of their inputs and media in order."""

    uids: set[str]
    paths: list[str]

    def within(self, folder: str) -> bool:
        """Whether any of the paths is that folder, or lies below it."""
        below = f"{folder}/"
        return self._first_from(folder) == folder or self._first_from(below).startswith(below)

    def _first_from(self, start: str) -> str:
        place = bisect_left(self.paths, start)
        return self.paths[place] if place < len(self.paths) else ""


class RetentionRows:
    def __init__(self, db: Database) -> None:
        self._db = db

    def forget(self, before: int, limit: int) -> int:
        """Delete jobs that ended before a time, with their attempts and events; at most `limit`. How many went."""
        ids = [row[0] for row in self._db.execute(OLD, {"before": before, "limit": limit})]
        marks = ", ".join("?" for _ in ids)
        with self._db.atomic():
            for table, column in (("attempts", "job_id"), ("events", "job_id"), ("jobs", "id")):
                self._db.execute(f"DELETE FROM {table} WHERE {column} IN ({marks})", ids)
            self._db.execute("DELETE FROM events WHERE job_id IS NULL AND at_ms < ?", [before])
        return len(ids)

    def needed(self) -> Needed:
        """What jobs with something left to do still need."""
        rows = self._db.execute(OPEN).fetchall()
        paths = {path for _, inputs, media in rows for path in _paths(inputs, media)}
        return Needed({row[0] for row in rows}, sorted(paths))


def _paths(inputs: str | None, media: str) -> Iterator[str]:
    if inputs:
        yield inputs
    yield from (medium["path"] for medium in json.loads(media).values())
