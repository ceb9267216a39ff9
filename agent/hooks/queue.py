"""Which ends of jobs are still to be told, on disk: each is told at least once, also across restarts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agent.fs import atomic_write_bytes
from agent.hooks.ends import EndReader
from agent.ledger.reader import Rows

LONGEST_PAUSE_S = 300.0
TOLD = ("done", "failed")


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
        self._ends, self.pending = self._load()

    def _load(self) -> tuple[EndReader, list[Delivery]]:
        try:
            record = json.loads(self._file.read_bytes())
            ends = EndReader(record["since"], {(uid, at) for uid, at in record["told"]}, TOLD)
            return ends, [Delivery(**one) for one in record["pending"]]
        except (OSError, ValueError, KeyError, TypeError):
            return EndReader(states=TOLD), []

    def save(self) -> None:
        told, pending = sorted(self._ends.seen), [asdict(one) for one in self.pending]
        text = json.dumps({"since": self._ends.since, "told": told, "pending": pending}, indent=1)
        atomic_write_bytes(self._file, text.encode())

    def read_ends(self, db: Rows, hooks: Mapping[str, Iterable[str]]) -> None:
        """Add a delivery for each hook and each end since the last call; the first call ever adds none.

        hooks   the names of hooks, each with the states that it is told of
        """
        is_first = self._ends.since is None
        fresh = self._ends.read_new(db)
        for row in fresh:
            told = [hook for hook, states in hooks.items() if row["state"] in states]
            self.pending += [Delivery(hook, row["uid"], row["finished_at"]) for hook in told]
        if fresh or is_first:
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


def find_row(db: Rows, delivery: Delivery) -> dict[str, Any] | None:
    """Return the row of the job as it is now; None where it was deleted."""
    return next(iter(db.query("SELECT * FROM job_status WHERE uid = ?", [delivery.uid])), None)
