"""How the pool places spans and reports what happens: histories without processes or real time."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from gpu_pool.backoff import Backoff
from gpu_pool.local import cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import (
    Assignment,
    Cancel,
    Device,
    Done,
    Event,
    Plan,
    Span,
    Stop,
    Task,
    grid,
)
from gpu_pool.wire import WireError
from tests.gpu_pool.fake import Clock, FakeBackend, make_done, make_progress
from tests.gpu_pool.history import (
    CANCEL_S,
    STALL_S,
    History,
    list_ends,
    list_faults,
    list_states,
    make_task,
    start_busy,
)


def test_a_span_from_plan_to_done() -> None:
    """Progress and Done come with the device; the device is busy meanwhile."""
    history = start_busy()
    assert history.device().state == "busy"
    assert history.pool.running_spans("task") == (Span(0, 24),)
    history.backend.say("cpu:0", make_progress(history.run(), 12))
    history.backend.say("cpu:0", make_done(history.run()))
    events = history.wait(0.0)
    assert [event.message for event in events if isinstance(event, Event)] == [
        make_progress(history.run(), 12),
        make_done(history.run()),
    ]
    assert list_states(events) == ["idle"]
    assert history.pool.running_spans("task") == ()


def test_no_event_is_reported_twice() -> None:
    """A pool without changes reports nothing."""
    history = start_busy(stall_s=1e6)
    assert history.wait(1000.0) == []


def test_split_gives_fast_devices_more_spans() -> None:
    """No device is idle while there are spans."""
    seconds = {"cpu:0": 1.0, "cpu:1": 3.0}
    history = History(2, lambda device, run: [(seconds[device], make_done(run))])
    history.wait(0.0)
    job = make_task(24 * 12, "split")
    finished = run_to_end(history, job)
    assert len(finished) == 12
    taken = [device for device, _ in history.backend.runs()]
    assert (taken.count("cpu:0"), taken.count("cpu:1")) == (9, 3)
    assert history.clock() == pytest.approx(9.0)


def run_to_end(history: History, job: Task) -> set[Span]:
    """Plan and poll as the daemon does, until all spans are done."""
    finished: set[Span] = set()
    while len(finished) < len(job.todo):
        running = history.pool.running_spans(job.id)
        todo = tuple(span for span in job.todo if span not in finished and span not in running)
        history.start(replace(job, todo=todo, running=running))
        events = history.pool.poll(100.0)
        finished |= {Span(end.start, end.stop) for end in list_ends(events) if isinstance(end, Done)}
        history.seen += events
    return finished


def test_queue_uses_one_device_at_a_time() -> None:
    """In order, whatever is idle."""
    history = History(3, lambda _, run: [(1.0, make_done(run))])
    history.wait(0.0)
    assert len(run_to_end(history, make_task(96, "queue"))) == 4
    assert [run.start for _, run in history.backend.runs()] == [0, 24, 48, 72]
    assert history.clock() == pytest.approx(4.0)


def test_race_is_won_by_the_first_and_cancels_the_others() -> None:
    """One Done for the span; the losers become idle, and their end is not reported."""
    seconds = {"cpu:0": 5.0, "cpu:1": 1.0}
    history = History(2, lambda device, run: [(seconds[device], make_done(run))])
    history.wait(0.0)
    assert history.start(make_task(24, "race")) == [("cpu:0", Span(0, 24)), ("cpu:1", Span(0, 24))]
    assert history.pool.running_spans("task") == (Span(0, 24),)
    history.wait(1.5)
    assert len(list_ends(history.seen)) == 1
    assert [device.state for device in history.pool.devices()] == ["idle", "idle"]
    assert history.pool.running_spans("task") == ()
    assert ("cpu:0", Cancel("task")) in history.backend.sent


def test_the_losers_of_a_race_are_warm_again_in_under_a_second() -> None:
    """They are cancelled at once, keep their process and their model, and take the next span."""
    history = History(3, lambda device, run: [(1.0 if device == "cpu:1" else 60.0, make_done(run))])
    history.wait(10.0)
    before = [device.worker_pid for device in history.pool.devices()]
    history.start(make_task(24, "race", model="musetalk"))
    history.wait(1.0)
    assert len(list_ends(history.seen)) == 1
    won_at = history.clock()
    history.wait(0.5)
    assert [(device.state, device.model) for device in history.pool.devices()] == [("idle", "musetalk")] * 3
    assert [device.worker_pid for device in history.pool.devices()] == before
    assert len(history.start(make_task(24, "race", name="next"))) == 3
    assert history.clock() - won_at < 1.0


def test_race_with_a_dead_heat_is_reported_once() -> None:
    """Two Done of the same span in the same moment are one."""
    history = History(2, lambda _, run: [(1.0, make_done(run))])
    history.wait(0.0)
    history.start(make_task(24, "race"))
    history.wait(5.0)
    assert len(list_ends(history.seen)) == 1


def test_race_survives_a_dying_device() -> None:
    """The span still runs on the other; the death is reported, the late loser isn't."""
    history = History(2)
    history.wait(10.0)
    history.start(make_task(24, "race"))
    history.backend.die("cpu:0")
    assert list_faults(history.wait(0.0)) == [("worker", "worker_died")]
    assert history.pool.running_spans("task") == (Span(0, 24),)
    history.backend.say("cpu:1", make_done(history.run("cpu:1")))
    assert [type(end) for end in list_ends(history.wait(0.0))] == [Done]


def test_a_deaf_loser_of_a_race_is_killed() -> None:
    """After cancel_s; it is not reported and doesn't count against the device."""
    history = History(2, backoff=Backoff(sick_after=1))
    history.wait(0.0)
    history.start(make_task(24, "race"))
    history.backend.deaf.add("cpu:0")
    history.backend.say("cpu:1", make_done(history.run("cpu:1")))
    history.wait(CANCEL_S + 1)
    assert len(list_ends(history.seen)) == 1
    assert history.backend.killed == ["cpu:0"]
    assert history.device("cpu:0").state == "idle"


def test_plan_prefers_the_device_that_has_the_model() -> None:
    """A device keeps the model of its last task until its worker ends."""
    history = History(2)
    history.wait(10.0)
    musetalk = make_task(model="musetalk")
    history.pool.start(Plan(musetalk, (Assignment(Span(0, 24), "cpu:1"),)))
    history.backend.say("cpu:1", make_done(history.run("cpu:1")))
    history.wait(0.0)
    assert history.device("cpu:1").model == "musetalk"
    assert [device for device, _ in history.start(musetalk)] == ["cpu:1"]
    history.backend.die("cpu:1")
    history.wait(0.0)
    assert history.device("cpu:1").model == ""


def test_plan_leaves_out_spans_that_run_already() -> None:
    """The task may have been built before they started."""
    history = History(3)
    history.wait(0.0)
    job = make_task(72, "split")
    history.pool.start(Plan(job, (Assignment(Span(0, 24), "cpu:1"),)))
    assert history.start(job) == [("cpu:0", Span(24, 48)), ("cpu:2", Span(48, 72))]
    assert history.start(job) == []


def test_plan_uses_only_devices_of_the_tasks_kind() -> None:
    """A card runs no task for the processor, and the processor none for a card."""
    clock = Clock()
    backend = FakeBackend([Device("GPU-a", "cuda"), *cpu_devices(1)], clock)
    pool = Pool(backend, stall_s=STALL_S, clock=clock)
    pool.poll(0.0)
    for job, expected in ((replace(make_task(), kind="cuda"), "GPU-a"), (make_task(), "cpu:0")):
        plan = pool.plan(job, 0)
        assert plan is not None
        assert [assignment.device for assignment in plan.assignments] == [expected]
    pool.close()


def test_an_unknown_strategy_is_refused_by_name() -> None:
    """The error lists the names of the others."""
    with pytest.raises(ValueError, match="'fastest'; there are auto, queue, race, split"):
        History().pool.plan(make_task(strategy="fastest"), 0)


def test_start_refuses_a_device_that_isnt_idle_or_is_named_twice() -> None:
    """It starts nothing of such a plan."""
    history = start_busy(2)
    spans = grid(48)
    for devices in (("cpu:1", "cpu:0"), ("cpu:1", "cpu:1")):
        assignments = tuple(Assignment(span, device) for span, device in zip(spans, devices, strict=True))
        with pytest.raises(ValueError, match="not idle"):
            history.pool.start(Plan(make_task(), assignments))
    assert len(history.backend.runs()) == 1


def test_start_refuses_a_payload_that_cant_be_sent() -> None:
    """The device stays idle."""
    history = History()
    history.wait(0.0)
    with pytest.raises(WireError):
        history.start(make_task(payload={"path": object()}))
    assert history.device().state == "idle"


def test_wake_ends_poll() -> None:
    """Also from another thread, also before poll begins, and only once."""
    history = start_busy(stall_s=1e9)
    waker = threading.Thread(target=history.pool.wake)
    waker.start()
    waker.join()
    assert history.pool.poll(1000.0) == []
    assert history.clock() < 100.0
    assert history.pool.poll(1000.0) == []
    assert history.clock() >= 1000.0


def test_close_asks_then_kills() -> None:
    """It waits for the workers, no longer than the grace, and then closes the backend."""
    history = start_busy(2)
    history.backend.deaf.add("cpu:0")
    history.pool.close(grace_s=3.0)
    assert history.backend.sent[-2:] == [("cpu:0", Stop()), ("cpu:1", Stop())]
    assert history.backend.closed
    assert history.clock() == pytest.approx(4.0)
    history.pool.wake()


def test_close_waits_no_longer_than_it_must() -> None:
    """Workers that end when asked cost no time."""
    history = start_busy(3)
    history.pool.close(grace_s=1000.0)
    assert history.clock() < 10.0
    assert history.backend.killed == []


def test_a_flood_of_events_is_passed_on_whole() -> None:
    """A hundred progress messages in one moment are a hundred events."""
    history = start_busy()
    for unit in range(100):
        history.backend.say("cpu:0", make_progress(history.run(), unit % 24))
    assert len([event for event in history.wait(0.0) if isinstance(event, Event)]) == 100


def simulate(strategy: str, jobs: int, every_s: float, devices: int = 4, span_s: float = 1.0) -> tuple[float, float]:
    """Let jobs of 16 spans arrive one after another.

    Return the seconds until all are done, and the mean from arrival to end.
    """
    history = History(devices, lambda _, run: [(span_s, make_done(run))])
    history.wait(0.0)
    began = history.clock()
    todo = {str(n): set(grid(24 * 16)) for n in range(jobs)}
    ended: dict[str, float] = {}
    while len(ended) < jobs:
        now = history.clock() - began
        arrived = [name for name in todo if int(name) * every_s <= now and name not in ended]
        place(history, strategy, {name: todo[name] for name in arrived})
        next_arrival = min((int(n) * every_s for n in todo if int(n) * every_s > now), default=now + 1000.0)
        for end in list_ends(history.pool.poll(next_arrival - now)):
            todo[end.task].discard(Span(end.start, end.stop))
            if not todo[end.task]:
                ended[end.task] = history.clock() - began
    return max(ended.values()), sum(ended[n] - int(n) * every_s for n in ended) / jobs


def place(history: History, strategy: str, todo: dict[str, set[Span]]) -> None:
    """Do one round of the daemon: running jobs first, then waiting ones."""
    waiting = [name for name in todo if not history.pool.running_spans(name)]
    for name in [*(name for name in todo if name not in waiting), *waiting]:
        others = len([other for other in waiting if other != name and not history.pool.running_spans(other)])
        job = Task(name, "cpu", tuple(sorted(todo[name])), strategy=strategy)
        history.start(job, waiting=others)


def test_auto_is_as_fast_as_split_for_a_lone_job() -> None:
    """On an idle pool, within 10 % of pure split."""
    _, split_s = simulate("split", jobs=1, every_s=0.0)
    _, auto_s = simulate("auto", jobs=1, every_s=0.0)
    assert split_s == pytest.approx(4.0)
    assert auto_s <= 1.1 * split_s


def test_auto_does_as_much_as_queue_under_load() -> None:
    """With 40 jobs waiting, within 2 % of pure queue."""
    queue_s, _ = simulate("queue", jobs=40, every_s=0.0)
    auto_s, _ = simulate("auto", jobs=40, every_s=0.0)
    assert queue_s == pytest.approx(160.0)
    assert auto_s <= 1.02 * queue_s


def test_auto_gives_devices_back_when_others_arrive() -> None:
    """A job that had the pool to itself leaves a device to a new one at its next span boundary."""
    history = History(2, lambda _, run: [(1.0, make_done(run))])
    history.wait(0.0)
    first = {"first": set(grid(24 * 8))}
    place(history, "auto", first)
    assert len(history.pool.running_spans("first")) == 2
    for end in list_ends(history.wait(1.0)):
        first["first"].discard(Span(end.start, end.stop))
    place(history, "auto", {**first, "second": set(grid(24 * 8))})
    assert len(history.pool.running_spans("first")) == 1
    assert len(history.pool.running_spans("second")) == 1
