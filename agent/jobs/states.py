"""The states of a job and the moves between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset({JobState.WAITING}),
    JobState.CANCELLED: frozenset({JobState.WAITING}),
}


LIVE = (JobState.WAITING, JobState.QUEUED, JobState.RUNNING)
"""States of a job that has not ended: it can be cancelled."""
UNSTARTED = (JobState.WAITING, JobState.QUEUED)
"""States of a job whose turn has not come: it can be moved in the queue."""
RETRIABLE = (JobState.FAILED, JobState.CANCELLED)
"""States that a job can be run again from."""


def can_move(old: JobState, new: JobState) -> bool:
    return new in MOVES[old]
