"""Which jobs have ended since the last look at the ledger."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from agent.ledger.reader import Rows

ENDS = ("done", "failed", "cancelled")
FINISHED = (
    "SELECT * FROM job_status WHERE finished_at >= ? AND state IN (SELECT value FROM json_each(?))"
    " AND submitter <> 'draft' ORDER BY finished_at"
)
NEWEST = "SELECT coalesce(max(finished_at), '1970') AS at FROM job_status"
MANY = 500
"""As many ends as are read at once, and all others of the same millisecond."""


@dataclass(slots=True)
class EndReader:
    """Remembers which ends were read: all before the time `since`, and those in `seen` at it."""

    since: str | None = None
    seen: set[tuple[str, str]] = field(default_factory=set)
    states: tuple[str, ...] = ENDS

    def read_new(self, db: Rows) -> list[dict[str, Any]]:
        """Return the rows of the jobs that have ended since the last call; the first call ever returns none."""
        is_first = self.since is None
        if self.since is None:
            self.since = str(next(iter(db.query(NEWEST)))["at"])
        fresh: list[dict[str, Any]] = []
        for row in db.query(FINISHED, [self.since, json.dumps(self.states)]):
            if (row["uid"], row["finished_at"]) in self.seen:
                continue
            if len(fresh) >= MANY and row["finished_at"] != fresh[-1]["finished_at"]:
                break
            fresh.append(row)
        if fresh:
            self.since = fresh[-1]["finished_at"]
            self.seen |= {(row["uid"], row["finished_at"]) for row in fresh}
            self.seen = {(uid, at) for uid, at in self.seen if at == self.since}
        return [] if is_first else fresh
