"""Strategies simulated from event to event: how much is done, and how long one job takes."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from gpu_pool.strategy import STRATEGIES
from gpu_pool.types import Device, Span, Task, grid

CARDS = tuple(Device(f"card{n}", "cuda") for n in range(4))


@dataclass
class Job:
    """`seconds`: cost of a frame; `came`: when it was dropped."""

    name: str
    frames: int
    seconds: float
    came: float = 0.0
    done: set[Span] = field(default_factory=set)
    running: Counter[Span] = field(default_factory=Counter)
    ended: float = 0.0

    def __post_init__(self) -> None:
        self.spans = grid(self.frames)

    @property
    def is_waiting(self) -> bool:
        """Whether it has no device, and would take one."""
        return not self.running and not self.ended

    @property
    def todo(self) -> tuple[Span, ...]:
        return tuple(span for span in self.spans if span not in self.done and not self.running[span])

    def task(self, strategy: str) -> Task:
        return Task(self.name, "cuda", self.todo, tuple(self.running.elements()), strategy=strategy)


class Simulation:
    """Devices, jobs, and the daemon's rule: the first job first."""

    def __init__(self, strategy: str, jobs: Sequence[Job], slowness: Sequence[float] = (1, 1, 1, 1)) -> None:
        self.strategy, self.jobs = strategy, jobs
        self.slowness = {card.id: slow for card, slow in zip(CARDS, slowness, strict=True)}
        self.now = 0.0
        self.idle = list(CARDS)
        self.busy: dict[str, Job] = {}
        self.used: list[tuple[float, str, str]] = []
        self.order = itertools.count()
        self.events: list[tuple[float, int, str, Job, Span]] = []

    def run(self) -> float:
        """Until everything is done; returns when that is."""
        for job in self.jobs:
            heapq.heappush(self.events, (job.came, next(self.order), "", job, Span(0, 0)))
        while self.events:
            self.now = self.events[0][0]
            while self.events and self.events[0][0] == self.now:
                _, _, card, job, span = heapq.heappop(self.events)
                if card:
                    self._end(card, job, span)
            self._dispatch()
        return max(job.ended for job in self.jobs)

    def _end(self, card: str, job: Job, span: Span) -> None:
        self.idle.append(next(device for device in CARDS if device.id == card))
        job.running[span] -= 1
        job.running += Counter()
        job.done.add(span)
        if len(job.done) == len(job.spans):
            job.ended = self.now

    def _dispatch(self) -> None:
        here = [job for job in self.jobs if job.came <= self.now and not job.ended]
        for job in here:
            if not self.idle:
                return
            waiting = sum(other.is_waiting for other in here if other is not job)
            plan = STRATEGIES[self.strategy](job.task(self.strategy), self.idle, waiting)
            for assignment in plan.assignments if plan else ():
                self._begin(assignment.device, job, assignment.span)

    def _begin(self, card: str, job: Job, span: Span) -> None:
        self.idle = [device for device in self.idle if device.id != card]
        job.running[span] += 1
        self.used.append((self.now, card, job.name))
        takes = span.units * job.seconds * self.slowness[card]
        heapq.heappush(self.events, (self.now + takes, next(self.order), card, job, span))


def make_jobs(seed: int, count: int) -> list[Job]:
    """Return jobs of all lengths, dropped at once."""
    chance = random.Random(seed)
    return [Job(f"job{n}", chance.randrange(20, 3000), chance.uniform(0.02, 0.06)) for n in range(count)]


def get_ideal_s(jobs: Sequence[Job]) -> float:
    return sum(job.frames * job.seconds for job in jobs) / len(CARDS)


@pytest.mark.parametrize("seed", range(5))
def test_auto_does_as_much_under_load_as_queue(seed: int) -> None:
    """Sixty jobs take at most 2 % longer than with `queue`; no card is idle while jobs wait."""
    with_queue = Simulation("queue", make_jobs(seed, 60)).run()
    jobs = make_jobs(seed, 60)
    with_auto = Simulation("auto", jobs).run()
    assert with_auto <= 1.02 * with_queue
    assert with_auto <= 1.02 * get_ideal_s(jobs)


@pytest.mark.parametrize("seed", range(5))
def test_auto_under_a_steady_load_waits_no_longer_than_queue(seed: int) -> None:
    """At nine tenths of what four cards can do, jobs end with `auto` no later on average."""

    def mean_s(strategy: str) -> float:
        jobs = make_jobs(seed, 80)
        every = get_ideal_s(jobs) / len(jobs) / 0.9
        for n, job in enumerate(jobs):
            job.came = n * every
        Simulation(strategy, jobs).run()
        return sum(job.ended - job.came for job in jobs) / len(jobs)

    assert mean_s("auto") <= 1.02 * mean_s("queue")


@pytest.mark.parametrize("frames", [10, 24, 100, 750, 5000])
@pytest.mark.parametrize("slowness", [(1, 1, 1, 1), (1, 1, 2, 3)])
def test_auto_on_an_idle_pool_is_as_fast_as_split(frames: int, slowness: tuple[float, ...]) -> None:
    """One job alone, on equal or unequal cards, takes at most a tenth longer than with `split`."""
    alone = Simulation("auto", [Job("one", frames, 0.04)], slowness).run()
    assert alone <= 1.1 * Simulation("split", [Job("one", frames, 0.04)], slowness).run()


def test_split_is_four_times_as_fast_as_queue_on_four_cards() -> None:
    """A long job that has all cards to itself."""
    split = Simulation("split", [Job("one", 3840, 0.04)]).run()
    queue = Simulation("queue", [Job("one", 3840, 0.04)]).run()
    assert queue / split == pytest.approx(4.0)


def test_uneven_cards_finish_together() -> None:
    """With one card at half speed, `split` loses at most one span against the ideal."""
    job = Job("one", 3840, 0.04)
    took = Simulation("split", [job], (1, 1, 1, 2)).run()
    ideal = 3840 * 0.04 / 3.5
    assert took <= ideal + 2 * 240 * 0.04


def test_a_job_that_was_alone_gives_cards_back() -> None:
    """When three others come, each has a card as soon as a span ends, and the first keeps one."""
    first = Job("first", 3840, 0.04)
    others = [Job(f"later{n}", 3840, 0.04, came=5.0) for n in range(3)]
    simulation = Simulation("auto", [first, *others])
    simulation.run()
    assert {name for at, _, name in simulation.used if at == 0.0} == {"first"}
    first_span_ends = 240 * 0.04
    at_boundary = {card: name for at, card, name in simulation.used if at == pytest.approx(first_span_ends)}
    assert sorted(at_boundary.values()) == ["first", "later0", "later1", "later2"]


def test_cards_that_become_idle_are_used_again() -> None:
    """When the other jobs are done, the last one has all cards again."""
    jobs = [Job("long", 3840, 0.04), *(Job(f"short{n}", 24, 0.04) for n in range(3))]
    took = Simulation("auto", jobs).run()
    assert took <= 1.1 * get_ideal_s(jobs) + 240 * 0.04
