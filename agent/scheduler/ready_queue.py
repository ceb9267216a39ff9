"""The jobs whose turn it is, each with its level, as the dispatcher hands out the idle devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agent.jobs.queue_order import age_priority, sort_by_turn
from agent.ledger.job import Job
from agent.ledger.ledger import Ledger
from agent.scheduler.attempt import Attempt
from gpu_pool.types import Device, DeviceKind

IN_SERVICE = ("starting", "idle", "busy")


@dataclass
class ReadyQueue:
    """The first jobs of the queue, most urgent first.

    jobs, levels   the jobs, and the level of each
    highest        the highest priority of all jobs, queued and running
    waiting        how many jobs could start, those beyond `jobs` included
    in_service     how many devices there are that work or could work
    kinds          the kinds of devices there are
    """

    highest: int
    in_service: int
    kinds: set[DeviceKind]
    jobs: list[Job] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    waiting: int = 0

    def pop(self) -> Job:
        """Take the first job out of the queue."""
        self.levels.pop(0)
        self.waiting -= 1
        return self.jobs.pop(0)

    def level_of(self, attempt: Attempt, at_ms: int) -> int:
        """Return the level of a running job: it gains by waiting for a device, too."""
        return age_priority(attempt.job.priority, attempt.served_ms, at_ms, self.highest)


def read_ready_queue(
    ledger: Ledger,
    attempts: Iterable[Attempt],
    devices: list[Device],
    length: int,
    at_ms: int,
    held: Sequence[str] = (),
) -> ReadyQueue:
    """Return the first `length` jobs of the queue, beside the attempts that run.

    Jobs that ask for one of the engines `held` are left out.
    """
    ready = ledger.queue.list_ready(at_ms, length, held) if length else []
    turns = sort_by_turn(ready, ledger.queue.served_ms(), at_ms)[:length] if ready else []
    priorities = [turn.priority for turn in ready] + [attempt.job.priority for attempt in attempts]
    highest = max(priorities, default=0)
    return ReadyQueue(
        highest=highest,
        in_service=sum(device.state in IN_SERVICE for device in devices),
        kinds={device.kind for device in devices},
        jobs=ledger.list_by_turn(turns),
        levels=[age_priority(turn.priority, turn.since_ms, at_ms, highest) for turn in turns],
        waiting=ledger.queue.count_ready(at_ms, held) if ready else 0,
    )
