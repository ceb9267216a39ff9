"""Which ends of jobs are still to be told, on disk: each is told at least once, also across restarts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agent.fs import atomic_write_bytes
from agent.ledger.sqlite import Database

FINISHED = (
    "SELECT * FROM job_status WHERE finished_at >= ? AND state IN ('done', 'failed') ORDER BY finished_at LIMIT 500"
)
NEWEST = "SELECT max(finished_at) AS at FROM job_status"
LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One hook that is to be told of one end: how often that was tried, and when it is due in seconds since 1970."""

    hook: str
    uid: str
    finished_at: str
    attempts: int = 0
    due_s: float = 0.0

    def retry(self, now_s: float) -> Delivery:
        """Return the next attempt: after 2, 4, 8 ... s, at most five minutes."""
        attempts = self.attempts + 1
        return replace(self, attempts=attempts, due_s=now_s + min(LONGEST_PAUSE_S, 2.0**attempts))


class HookQueue:
    """The deliveries that are due. A file keeps them, and the time up to which the ledger was read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.since: str | None = None
        self.pending: list[Delivery] = []
        self._told: set[tuple[str, str]] = set()
        self._load()

    def _load(self) -> None:
        try:
            record = json.loads(self._file.read_bytes())
            self.since = record["since"]
            self._told = {(uid, at) for uid, at in record["told"]}
            self.pending = [Delivery(**one) for one in record["pending"]]
        except (OSError, ValueError, KeyError, TypeError):
            self.since, self.pending, self._told = None, [], set()

    def save(self) -> None:
        told, pending = sorted(self._told), [asdict(one) for one in self.pending]
        text = json.dumps({"since": self.since, "told": told, "pending": pending}, indent=1)
        atomic_write_bytes(self._file, text.encode())

    def read_ends(self, db: Database, hooks: Mapping[str, Iterable[str]]) -> None:
        """Add a delivery for each hook and each end since the last call; the first call ever adds none.

        hooks   the names of hooks, each with the states that it is told of
        """
        if self.since is None:
            [row] = db.query(NEWEST)
            self.since = row["at"] or "1970"
            self._told = {(row["uid"], row["finished_at"]) for row in db.query(FINISHED, [self.since])}
            self.save()
            return
        rows = list(db.query(FINISHED, [self.since]))
        fresh = [row for row in rows if (row["uid"], row["finished_at"]) not in self._told]
        if not fresh:
            return
        for row in fresh:
            told = [hook for hook, states in hooks.items() if row["state"] in states]
            self.pending += [Delivery(hook, row["uid"], row["finished_at"]) for hook in told]
        self.since = rows[-1]["finished_at"]
        self._told = {(row["uid"], row["finished_at"]) for row in rows if row["finished_at"] == self.since}
        self.save()

    def list_due(self, now_s: float) -> Iterator[Delivery]:
        return (one for one in list(self.pending) if one.due_s <= now_s)

    def finish(self, delivery: Delivery) -> None:
        """Forget a delivery that was told, or was tried often enough."""
        self.pending.remove(delivery)
        self.save()

    def postpone(self, delivery: Delivery, now_s: float) -> None:
        """Try a delivery again later."""
        self.pending[self.pending.index(delivery)] = delivery.retry(now_s)
        self.save()


def find_row(db: Database, delivery: Delivery) -> dict[str, Any] | None:
    """Return the row of the job as it is now; None where it was deleted."""
    return next(iter(db.query("SELECT * FROM job_status WHERE uid = ?", [delivery.uid])), None)
