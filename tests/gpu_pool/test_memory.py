"""Promises of memory: as tables, and as a state machine of cards and workers."""

from __future__ import annotations

import contextlib
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpu_pool.memory import MemoryBudget
from gpu_pool.memory import MemoryReservation as Reservation
from gpu_pool.pool import Pool
from gpu_pool.types import Assignment, Device, Done, Plan, Progress, Ready, RunSpan, Span, Task
from tests.gpu_pool.fake import Clock, FakeBackend

TOTAL, RESERVE, FOOTPRINT = 24, 2, 3
CARDS = ("GPU-a", "GPU-b")
SIZES = st.integers(1, TOTAL)
STRATEGIES = st.sampled_from(["queue", "split", "race", "auto"])
MODELS = st.sampled_from(["", "large", "small"])
DEVICES = tuple(f"{card}{suffix}" for card in CARDS for suffix in ("", "/2"))


def make_device(card: str, name: str = "", free: int = TOTAL) -> Device:
    return Device(name or card, "cuda", card=card, total_bytes=TOTAL, free_bytes=free)


@pytest.mark.parametrize(
    ("free", "own", "other", "available"),
    [
        (24, Reservation(), Reservation(), 22),
        (20, Reservation(held_bytes=4), Reservation(), 22),
        (24, Reservation(promised_bytes=8), Reservation(promised_bytes=10), 12),
        (18, Reservation(), Reservation(held_bytes=6, promised_bytes=10), 12),
        (12, Reservation(), Reservation(held_bytes=12, promised_bytes=10), 10),
        (24, Reservation(), Reservation(expired_bytes=10), 12),
        (18, Reservation(), Reservation(held_bytes=6, promised_bytes=7, expired_bytes=10), 12),
        (1, Reservation(), Reservation(promised_bytes=9), -10),
    ],
)
def test_available_memory(free: int, own: Reservation, other: Reservation, available: int) -> None:
    """Free, plus what the worker holds, less what the other may take, less the reserve of 2."""
    budget = MemoryBudget(
        [make_device("GPU-a", free=free), make_device("GPU-a", "GPU-a/2", free)],
        {"GPU-a": own, "GPU-a/2": other},
        RESERVE,
    )
    assert budget.available_bytes("GPU-a") == available
    assert budget.can_fit("GPU-a", 12) is (available >= 12)
    assert budget.can_fit("GPU-a", 0)


def test_memory_without_figures_is_infinite() -> None:
    """On a processor, and on a card that shares the host's memory."""
    devices = [Device("cpu:0", "cpu"), Device("GPU-a", "cuda", card="GPU-a")]
    budget = MemoryBudget(devices, {device.id: Reservation() for device in devices}, RESERVE)
    assert [budget.available_bytes(device.id) for device in devices] == [inf, inf]


def test_a_promise_outlives_its_span_until_the_next_reading() -> None:
    """A short span between two readings may have taken memory that is free in the older one."""
    reservation = Reservation().update(1, read_at_s=1.0).promise(10).expire(5.0)
    assert reservation.open_bytes == 9
    assert reservation.update(1, read_at_s=5.0).open_bytes == 9
    assert reservation.update(8, read_at_s=5.1).open_bytes == 0
    assert reservation.update(8, read_at_s=5.1).promise(10).open_bytes == 2


def test_a_workers_report_counts_for_later_readings_only() -> None:
    """What it took after a reading is still part of its free memory."""
    reservation = Reservation().promise(10).report(6, 2.0)
    assert reservation.update(0, read_at_s=1.5).open_bytes == 10
    assert reservation.update(0, read_at_s=2.5).open_bytes == 4


def test_the_drivers_figure_beats_the_workers() -> None:
    """It comes from the same moment as the free memory."""
    assert Reservation().promise(10).report(6, 2.0).update(7, read_at_s=2.5).held_bytes == 7


def test_two_workers_of_one_card_that_fit_alone_only_are_one_candidate() -> None:
    """A plan may use all candidates, so the spans fit on them at once."""
    devices = [make_device("GPU-a"), make_device("GPU-a", "GPU-a/2"), make_device("GPU-b", free=10)]
    budget = MemoryBudget(devices, {device.id: Reservation() for device in devices}, RESERVE)
    candidates = budget.find_candidates(12, -inf, [device.id for device in devices], lambda left: left)
    assert [(device.id, device.free_bytes) for device in candidates] == [("GPU-a", 22)]


def test_a_plan_that_came_too_late_is_refused() -> None:
    """Two plans of the same instant use the same memory; the second to start finds it promised."""
    clock = Clock()
    backend = FakeBackend([make_device("GPU-a"), make_device("GPU-a", "GPU-a/2")], clock)
    with Pool(backend, stall_s=1e9, clock=clock) as pool:
        pool.poll(0.0)
        first, second = (Task(name, "cuda", (Span(0, 1),), memory_bytes=13) for name in ("first", "second"))
        pool.start(Plan(first, (Assignment(Span(0, 1), "GPU-a"),)))
        with pytest.raises(ValueError, match="not enough memory is left on GPU-a/2"):
            pool.start(Plan(second, (Assignment(Span(0, 1), "GPU-a/2"),)))
        assert [run.task for _, run in backend.runs()] == ["first"]
        assert pool.open_bytes() == {"GPU-a": 13, "GPU-a/2": 0}


class CardMachine(RuleBasedStateMachine):
    """Two cards of 24 units, with two workers each, and other programs that take memory.

    A worker takes no more than it was promised, at any time. The driver is read now and then; the
    pool doesn't see what happens between two readings.
    """

    lists_pids = True

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.holds = dict.fromkeys(DEVICES, 0)
        self.foreign = dict.fromkeys(CARDS, 0)
        self.read_foreign = dict(self.foreign)
        self.lost: set[str] = set()
        self.runs: dict[str, tuple[RunSpan, int]] = {}
        self.tasks = 0
        self.backend = FakeBackend([make_device(name.partition("/")[0], name) for name in DEVICES], self.clock)
        self.backend.opening = self.open_worker
        self.pool = Pool(self.backend, stall_s=1e9, reserve_bytes=RESERVE, clock=self.clock)
        self.seen = self.clock(), dict(self.holds), dict(self.foreign)
        self.pass_time(1.0)
        self.ask_driver()

    def pass_time(self, seconds: float) -> None:
        until = self.clock() + seconds
        while self.clock() < until:
            self.pool.poll(until - self.clock())

    def open_worker(self, device_id: str, pid: int) -> tuple[float, Ready]:
        """Take the footprint of a worker at once, and report it when the worker is ready."""
        self.holds[device_id] = FOOTPRINT
        return 0.5, Ready(device_id, pid, {"held_bytes": FOOTPRINT})

    @rule()
    def read_driver(self) -> None:
        self.seen = self.clock(), dict(self.holds), dict(self.foreign)
        self.pass_time(0.01)

    @rule()
    def deliver_reading(self) -> None:
        at_s, holds, self.read_foreign = self.seen
        for device_id in DEVICES:
            card = device_id.partition("/")[0]
            free = TOTAL - self.read_foreign[card] - sum(holds[each] for each in DEVICES if each.startswith(card))
            held_bytes = holds[device_id] if self.lists_pids and device_id in self.backend.alive else 0
            self.backend.change(device_id, free_bytes=free, held_bytes=held_bytes, read_at_s=at_s)
        self.pass_time(0.01)

    @rule()
    def ask_driver(self) -> None:
        self.pass_time(0.01)
        self.read_driver()
        self.deliver_reading()

    def start(self, device_ids: list[str], size: int) -> None:
        """Note what runs, and check that the card has the memory for it."""
        for device_id in device_ids:
            run = next(run for device, run in reversed(self.backend.runs()) if device == device_id)
            self.runs[device_id] = run, size
            card = device_id.partition("/")[0]
            others = [each for each in DEVICES if each.startswith(card) and each != device_id]
            taken = sum(max(self.holds[each], self.promised(each)) for each in others)
            assert self.read_foreign[card] + RESERVE + taken + size <= TOTAL
            assert card not in self.lost

    def promised(self, device_id: str) -> int:
        return self.runs[device_id][1] if device_id in self.runs else 0

    def new_task(self, size: int, strategy: str, model: str) -> Task:
        self.tasks += 1
        spans = tuple(Span(n, n + 1) for n in range(4))
        return Task(f"t{self.tasks}", "cuda", spans, strategy=strategy, memory_bytes=size, model=model)

    @rule(size=SIZES, strategy=STRATEGIES, model=MODELS)
    def place(self, size: int, strategy: str, model: str) -> None:
        plan = self.pool.plan(self.new_task(size, strategy, model), 0)
        if plan:
            self.pool.start(plan)
            self.start([assignment.device for assignment in plan.assignments], size)

    @rule(sizes=st.tuples(SIZES, SIZES), strategy=STRATEGIES, models=st.tuples(MODELS, MODELS))
    def place_two_in_the_same_instant(self, sizes: tuple[int, int], strategy: str, models: tuple[str, str]) -> None:
        tasks = [self.new_task(size, strategy, model) for size, model in zip(sizes, models, strict=True)]
        plans = [plan for task in tasks if (plan := self.pool.plan(task, 0))]
        for plan in plans:
            with contextlib.suppress(ValueError):  # the first has taken the memory
                self.pool.start(plan)
                self.start([assignment.device for assignment in plan.assignments], plan.task.memory_bytes)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), progress=st.booleans())
    def allocate(self, data: st.DataObject, progress: bool) -> None:
        device_id = data.draw(st.sampled_from(sorted(self.runs)))
        run, size = self.runs[device_id]
        self.holds[device_id] = max(self.holds[device_id], data.draw(st.integers(0, size)))
        if progress:
            self.backend.say(device_id, Progress(run.task, run.start, run.stop, 1, self.holds[device_id]))
            self.pass_time(0.01)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), keeps=st.integers(0, TOTAL))
    def finish(self, data: st.DataObject, keeps: int) -> None:
        device_id = data.draw(st.sampled_from(sorted(self.runs)))
        run, _ = self.runs[device_id]
        self.holds[device_id] = min(self.holds[device_id], keeps)
        stats = {"held_bytes": self.holds[device_id]}
        self.backend.say(device_id, Done(run.task, run.start, run.stop, 0.0, stats=stats))
        self.pass_time(0.01)
        self.drop_ended()

    @rule(device_id=st.sampled_from(DEVICES), ready=st.booleans())
    def die(self, device_id: str, ready: bool) -> None:
        if device_id in self.backend.alive:
            self.holds[device_id] = 0
            self.backend.die(device_id)
            self.pass_time(1.0 if ready else 0.11)
            self.drop_ended()

    @rule(card=st.sampled_from(CARDS))
    def lose_or_return(self, card: str) -> None:
        self.lost ^= {card}
        state, reason = ("lost", "GPU is lost") if card in self.lost else ("starting", "")
        for device_id in DEVICES:
            if device_id.startswith(card):
                self.backend.change(device_id, state=state, reason=reason)
        self.pass_time(0.1)
        self.holds.update((device_id, 0) for device_id in DEVICES if device_id not in self.backend.alive)
        self.drop_ended()

    @rule(card=st.sampled_from(CARDS), data=st.data())
    def others_take_or_free(self, card: str, data: st.DataObject) -> None:
        ours = sum(self.holds[device_id] for device_id in DEVICES if device_id.startswith(card))
        self.foreign[card] = data.draw(st.integers(0, max(0, TOTAL - ours)))

    def drop_ended(self) -> None:
        self.runs = {
            device_id: (run, size) for device_id, (run, size) in self.runs.items() if self.pool.running_spans(run.task)
        }
        busy = {device.id for device in self.pool.devices() if device.state == "busy"}
        self.runs = {device_id: both for device_id, both in self.runs.items() if device_id in busy}

    @invariant()
    def lost_cards_run_nothing(self) -> None:
        assert not any(device_id.partition("/")[0] in self.lost for device_id in self.runs)

    def teardown(self) -> None:
        """Check that nothing is promised after the last span and another reading."""
        for card in sorted(self.lost):
            self.lose_or_return(card)
        for device_id, (run, _) in list(self.runs.items()):
            stats = {"held_bytes": self.holds[device_id]}
            self.backend.say(device_id, Done(run.task, run.start, run.stop, 0.0, stats=stats))
        self.pass_time(40.0)
        self.ask_driver()
        self.ask_driver()
        assert self.pool.open_bytes() == dict.fromkeys(DEVICES, 0)
        self.pool.close()


class CardMachineWithoutPids(CardMachine):
    """The driver lists no process, as in a container: the workers' own reports are used."""

    lists_pids = False


CardMachine.TestCase.settings = CardMachineWithoutPids.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)
TestPromises = CardMachine.TestCase
TestPromisesByReports = CardMachineWithoutPids.TestCase
