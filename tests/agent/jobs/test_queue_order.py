"""Turns in a queue, on a clock that a test moves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.jobs.queue_order import AGEING_MS, QueuedJob, age_priority, sort_by_turn

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
START = 20_000 * DAY


def jobs(submitter: str, count: int, *, first: int, since_ms: int = START, priority: int = 0) -> list[QueuedJob]:
    return [QueuedJob(first + n, submitter, priority, since_ms + n) for n in range(count)]


class Queue:
    """One device that always takes the job whose turn it is; `job_ms`: how long each takes."""

    def __init__(self, job_ms: int) -> None:
        self.job_ms = job_ms
        self.at = START
        self.waiting: list[QueuedJob] = []
        self.served: dict[str, int] = {}

    def add(self, *made: QueuedJob) -> None:
        self.waiting += made

    def step(self) -> QueuedJob:
        [job, *_] = sort_by_turn(self.waiting, self.served, self.at)
        self.waiting.remove(job)
        self.served[job.submitter] = max([self.at, *(tick + 1 for tick in self.served.values())])
        self.at += self.job_ms
        return job

    def all(self) -> Iterator[QueuedJob]:
        while self.waiting:
            yield self.step()


@pytest.mark.parametrize(
    ("priority", "waited_min", "most", "counts"),
    [
        (0, 0, 10, 0),
        (0, 9, 10, 0),
        (0, 10, 10, 1),
        (0, 95, 10, 9),
        (0, 500, 10, 10),
        (5, 500, 0, 5),
        (-10, 99, 0, -1),
        (0, -5, 10, 0),
    ],
)
def test_levels(priority: int, waited_min: int, most: int, counts: int) -> None:
    """One level for each ten minutes, up to the most urgent's; a clock that was set back takes nothing away."""
    assert age_priority(priority, START, START + waited_min * MINUTE, most) == counts


def test_higher_priority_goes_first_and_equals_in_the_order_they_came() -> None:
    """One submitter, nothing aged: by priority, then by arrival."""
    queue = Queue(1000)
    queue.add(*jobs("anna", 2, first=1), *jobs("anna", 2, first=3, priority=10))
    assert [job.id for job in queue.all()] == [3, 4, 1, 2]


def test_submitters_take_turns() -> None:
    """A hundred jobs of one and three of another: the three are among the first six."""
    queue = Queue(MINUTE)
    queue.add(*jobs("anna", 100, first=1), *jobs("bert", 3, first=200, since_ms=START + 500))
    order = [job.submitter for job in queue.all()]
    assert order[:7] == ["anna", "bert", "anna", "bert", "anna", "bert", "anna"]


def test_who_comes_to_a_long_queue_is_next() -> None:
    """After hours of one submitter's jobs, a new one waits for a device and not for the queue, though all have aged."""
    queue = Queue(3 * MINUTE)
    queue.add(*jobs("anna", 500, first=1))
    for _ in range(100):
        queue.step()
    queue.add(QueuedJob(900, "bert", 0, queue.at - 1000))
    assert queue.step().submitter == "bert"


@pytest.mark.parametrize("gap", [10, 20, 1])
def test_a_low_priority_is_served_in_the_end(gap: int) -> None:
    """However many urgent jobs come, one that is `gap` levels lower goes when it has waited ten minutes for each."""
    queue = Queue(MINUTE)
    queue.add(QueuedJob(1, "anna", -gap, START))
    served_at = -1
    for n in range(30 * gap):
        queue.add(QueuedJob(1000 + n, "bert", 0, queue.at))
        at = queue.at
        if queue.step().id == 1:
            served_at = at - START
            break
    assert gap * AGEING_MS <= served_at <= gap * AGEING_MS + 2 * MINUTE


def test_a_low_priority_of_the_same_submitter_is_served_too() -> None:
    """Whoever keeps sending urgent jobs still gets the one that could wait."""
    queue = Queue(MINUTE)
    queue.add(QueuedJob(1, "anna", -2, START))
    order = []
    for n in range(30):
        queue.add(QueuedJob(1000 + n, "anna", 0, queue.at))
        order.append(queue.step().id)
    assert order.index(1) == 20


def test_age_makes_equal_and_never_more() -> None:
    """An old job doesn't go before a fresh one of the highest priority because of its age alone."""
    old, urgent = QueuedJob(1, "anna", 0, START - DAY), QueuedJob(2, "bert", 10, START)
    assert sort_by_turn([old, urgent], {"anna": START - 1}, START)[0] == urgent
    assert sort_by_turn([old, urgent], {"bert": START - 1}, START)[0] == old


def test_a_new_name_for_every_job_starves_nobody() -> None:
    """Someone who calls himself anew for each job doesn't pass the others for ever."""
    queue = Queue(MINUTE)
    queue.add(*jobs("anna", 40, first=1))
    turns = []
    for n in range(400):
        if not any(job.submitter != "anna" for job in queue.waiting):
            queue.add(QueuedJob(1000 + n, f"liar{n}", 0, queue.at))
        if queue.step().submitter == "anna":
            turns.append(n)
    assert len(turns) >= 30
    assert max(b - a for a, b in pairwise(turns)) <= AGEING_MS // MINUTE + 2


def test_big_jobs_are_not_starved_by_small_ones() -> None:
    """A job of half an hour has its turn like one of a second, however many of those come."""
    queue = Queue(1000)
    queue.add(*jobs("film", 3, first=1))
    order = []
    for n in range(200):
        queue.add(QueuedJob(1000 + n, "clips", 0, queue.at), QueuedJob(5000 + n, "clips", 0, queue.at))
        order.append(queue.step().submitter)
    assert [n for n, name in enumerate(order) if name == "film"] == [0, 2, 4]


waiting_jobs = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(-3, 3), st.integers(-50 * MINUTE, 0)), max_size=20
).map(lambda rows: [QueuedJob(n, *row[:2], START + row[2]) for n, row in enumerate(rows)])


@settings(deadline=None)
@given(waiting_jobs, st.dictionaries(st.sampled_from("abc"), st.integers(START - DAY, START)))
def test_everyone_is_in_the_order_once(made: list[QueuedJob], served: dict[str, int]) -> None:
    """The order holds each job once, no level before a higher one, and taking the first leaves the rest as fair."""
    order = sort_by_turn(made, served, START)
    assert sorted(job.id for job in order) == list(range(len(made)))
    most = max((job.priority for job in made), default=0)
    levels = [age_priority(job.priority, job.since_ms, START, most) for job in order]
    assert levels == sorted(levels, reverse=True)


@settings(deadline=None, max_examples=50)
@given(waiting_jobs.filter(len), st.integers(1, 20))
def test_nothing_starves(made: list[QueuedJob], job_minutes: int) -> None:
    """Each of the first jobs is served within a bounded number of turns, though urgent ones stream in."""
    queue = Queue(job_minutes * MINUTE)
    queue.add(*made)
    longest_climb = 6 * AGEING_MS // queue.job_ms + 1
    turns = longest_climb + 6 * len(made) + 10
    seen = set()
    for n in range(turns):
        queue.add(QueuedJob(1000 + n, "xyz"[n % 3], 3, queue.at))
        seen.add(queue.step().id)
    assert seen >= {job.id for job in made}
