"""Whose turn it is. Pure: the jobs that wait, when each submitter was served last, and the time are arguments.

1. Higher priority first. A job gains one level for every ten minutes that it waits, up to the level of the most urgent
   job that waits beside it: age makes it an equal, and never puts it ahead.
2. Within a level the submitters take turns; whoever was served longest ago comes first. Someone new comes before all
   who were served in the last ten minutes, and not before others for ever, whatever names they think of.
3. A submitter's own jobs of a level go in the order in which they came.

So nothing starves: a job reaches the highest level in finite time, and from then on only finitely many go before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

AGEING_MS = 600_000
"""Milliseconds of waiting that are worth one level of priority."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that could start now, and since when it has been waiting for its turn (milliseconds since 1970)."""

    id: int
    submitter: str
    priority: int
    since_ms: int


def level(priority: int, since_ms: int, at: int, most: int) -> int:
    """The priority that counts at the time `at`; `most`: the highest priority of all that wait."""
    return max(priority, min(priority + (at - since_ms) // AGEING_MS, most))


def in_turn(jobs: Iterable[Waiting], served: Mapping[str, int], at: int) -> list[Waiting]:
    """The jobs in the order in which they should start. `served`: when a submitter last had a job started (ms).

    The view `queue` sorts by the same keys in SQL.
    """
    jobs = list(jobs)
    most = max((job.priority for job in jobs), default=0)
    levels = {job.id: level(job.priority, job.since_ms, at, most) for job in jobs}
    rounds: Counter[tuple[str, int]] = Counter()
    keys: dict[int, tuple[int, int, int, int, int]] = {}
    for job in sorted(jobs, key=lambda job: (job.since_ms, job.id)):
        rank = levels[job.id]
        rounds[job.submitter, rank] += 1
        turn = max(served.get(job.submitter, 0), job.since_ms - AGEING_MS)
        keys[job.id] = (-rank, rounds[job.submitter, rank], turn, job.since_ms, job.id)
    return sorted(jobs, key=lambda job: keys[job.id])
