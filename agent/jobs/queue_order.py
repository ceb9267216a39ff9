"""The order of the queue.

Pure: the queued jobs, the last start of each submitter, and the time are arguments.

1. Higher priority first. A job gains one level for every ten minutes in the queue, up to the
   highest priority of all
   queued jobs: with age it reaches that level, and never passes it.
2. Within a level the submitters take turns; the one served longest ago comes first. A new
   submitter counts as served
   ten minutes before its job came, so that inventing names gains no lasting advantage.
3. The jobs of one submitter in one level keep the order in which they came.

So no job starves: it reaches the highest level in finite time, and from then on only finitely many
go before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

AGEING_MS = 600_000
"""Milliseconds in the queue that are worth one level of priority."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job that could start now; `since_ms`: when it was queued, in milliseconds since 1970."""

    id: int
    submitter: str
    priority: int
    since_ms: int


def age_priority(priority: int, since_ms: int, at_ms: int, highest: int) -> int:
    """Return the level of a job at a time. `highest`: the highest priority of all queued jobs."""
    return max(priority, min(priority + (at_ms - since_ms) // AGEING_MS, highest))


def sort_by_turn(jobs: Iterable[QueuedJob], served_ms: Mapping[str, int], at_ms: int) -> list[QueuedJob]:
    """Return the jobs in the order in which they should start.

    `served_ms`: submitter -> when its last job started.

    The view `queue` sorts by the same keys in SQL.
    """
    jobs = list(jobs)
    highest = max((job.priority for job in jobs), default=0)
    levels = {job.id: age_priority(job.priority, job.since_ms, at_ms, highest) for job in jobs}
    rounds: Counter[tuple[str, int]] = Counter()
    keys: dict[int, tuple[int, int, int, int, int]] = {}
    for job in sorted(jobs, key=lambda job: (job.since_ms, job.id)):
        rank = levels[job.id]
        rounds[job.submitter, rank] += 1
        turn = max(served_ms.get(job.submitter, 0), job.since_ms - AGEING_MS)
        keys[job.id] = (-rank, rounds[job.submitter, rank], turn, job.since_ms, job.id)
    return sorted(jobs, key=lambda job: keys[job.id])
