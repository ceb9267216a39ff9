"""Histories of a pool: what its workers do, and what the pool must make of it. No processes, no real time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from gpu_pool.backoff import Backoff
from gpu_pool.local import cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import (
    Assignment,
    Cancel,
    Device,
    DeviceChanged,
    Done,
    Event,
    Exited,
    Failed,
    Plan,
    PoolEvent,
    Progress,
    ProtocolError,
    Ready,
    RunSpan,
    Span,
    Stop,
    Task,
    grid,
)
from gpu_pool.wire import WireError
from tests.gpu_pool.fake import Answer, Clock, FakeBackend, Message, done, failed, progress, silent

STALL_S, CANCEL_S, START_S, KILL_S = 20.0, 10.0, 300.0, 5.0


class History:
    """A pool over a fake backend, and everything it said."""

    open_pools: ClassVar[list[Pool]] = []

    def __init__(self, count: int = 1, answer: Answer = silent, devices: Sequence[Device] = (), **options: Any) -> None:
        self.clock = Clock()
        self.backend = FakeBackend(devices or cpu_devices(count), self.clock, answer)
        self.pool = Pool(self.backend, clock=self.clock, **{"stall_s": STALL_S, "cancel_s": CANCEL_S, **options})
        self.open_pools.append(self.pool)
        self.seen: list[PoolEvent] = []

    def wait(self, seconds: float) -> list[PoolEvent]:
        """Let time pass; what happened in it."""
        until, news = self.clock() + seconds, []
        while True:
            news += self.pool.poll(until - self.clock())
            if self.clock() >= until:
                self.seen += news
                return news

    def start(self, task: Task, waiting: int = 0) -> list[tuple[str, Span]]:
        plan = self.pool.plan(task, waiting)
        if plan is None:
            return []
        self.pool.start(plan)
        return [(assignment.device, assignment.span) for assignment in plan.assignments]

    def run(self, device: str = "cpu:0") -> RunSpan:
        """The last one this device got."""
        return next(run for on, run in reversed(self.backend.runs()) if on == device)

    def device(self, name: str = "cpu:0") -> Device:
        return next(device for device in self.pool.devices() if device.id == name)


@pytest.fixture(autouse=True)
def _close_pools() -> Iterator[None]:
    yield
    while History.open_pools:
        History.open_pools.pop().close()


def task(units: int = 48, strategy: str = "queue", name: str = "task", **more: Any) -> Task:
    return Task(name, "cpu", grid(units), strategy=strategy, **more)


def ends(events: list[PoolEvent]) -> list[Done | Failed]:
    return [event.message for event in events if isinstance(event, Event) and not isinstance(event.message, Progress)]


def faults(events: list[PoolEvent]) -> list[tuple[str, str]]:
    return [(end.fault, end.code) for end in ends(events) if isinstance(end, Failed)]


def states(events: list[PoolEvent], device: str = "cpu:0") -> list[str]:
    return [event.device.state for event in events if isinstance(event, DeviceChanged) and event.device.id == device]


def busy(count: int = 1, **options: Any) -> History:
    """A pool whose first device has just started the first span of a task."""
    history = History(count, **options)
    history.wait(1.0)
    history.start(task())
    history.wait(0.0)
    history.seen.clear()
    return history


def test_workers_are_spawned_at_once() -> None:
    """All of them, before anybody polls."""
    assert History(3).backend.spawned == ["cpu:0", "cpu:1", "cpu:2"]


def test_a_device_starts_and_gets_idle() -> None:
    """Its states are reported once each; the worker's pid and model come with Ready."""
    history = History()
    history.backend.opening = lambda device, pid: (2.0, Ready(device, pid, {"model": "musetalk"}))
    history.backend.kill("cpu:0")
    assert states(history.wait(5.0)) == ["starting", "idle"]
    assert history.device().model == "musetalk"
    assert history.device().worker_pid == 1001


def test_a_span_from_plan_to_done() -> None:
    """Progress and Done come with the device; the device is busy meanwhile."""
    history = busy()
    assert history.device().state == "busy"
    assert history.pool.running_spans("task") == (Span(0, 24),)
    history.backend.say("cpu:0", progress(history.run(), 12))
    history.backend.say("cpu:0", done(history.run()))
    events = history.wait(0.0)
    assert [event.message for event in events if isinstance(event, Event)] == [
        progress(history.run(), 12),
        done(history.run()),
    ]
    assert states(events) == ["idle"]
    assert history.pool.running_spans("task") == ()


def test_nothing_happens_twice() -> None:
    """A pool that is left alone says nothing."""
    history = busy(stall_s=1e6)
    assert history.wait(1000.0) == []


Saying = Message | None


@pytest.mark.parametrize(
    ("saying", "code"),
    [
        (Exited(1, signal="SIGKILL"), "worker_died"),
        (Exited(1, signal="SIGSEGV"), "worker_died"),
        (Exited(1, code=1, log="Traceback\nImportError: x"), "worker_died"),
        (Exited(1, signal="SIGKILL", out_of_memory=True), "out_of_memory"),
        (ProtocolError("blah"), "worker_nonsense"),
        (Ready("cpu:0", 5), "worker_nonsense"),
        (Done("other", 0, 24, 1.0), "worker_nonsense"),
        (Done("task", 0, 23, 1.0), "worker_nonsense"),
        (Progress("task", 24, 48, 1), "worker_nonsense"),
        (Failed("task", 24, 48, "x", "x"), "worker_nonsense"),
        (Failed("task", 0, 24, "cancelled", "", fault="cancelled"), "worker_nonsense"),
        (None, "worker_stalled"),
    ],
)
def test_a_worker_that_fails_costs_its_span_and_is_replaced(saying: Saying, code: str) -> None:
    """Whatever it does, the span ends as the worker's fault, once, and another worker gets ready."""
    history = busy()
    history.wait(5.0)
    if saying:
        history.backend.say("cpu:0", saying)
    events = history.wait(STALL_S)
    assert faults(events) == [("worker", code)]
    assert len(ends(events)) == 1
    assert ends(events)[0].start == 0
    assert states(events)[-2:] == ["starting", "idle"]
    assert history.backend.spawned == ["cpu:0", "cpu:0"]
    assert history.pool.running_spans("task") == ()


@pytest.mark.parametrize(
    ("saying", "words"),
    [
        (Exited(1, signal="SIGBUS", log="tail"), "The worker on cpu:0 was killed by SIGBUS."),
        (Exited(1, code=3), "The worker on cpu:0 ended by itself with exit code 3."),
        (Exited(1, code=1, log="a\nE: b"), "The worker on cpu:0 ended by itself with exit code 1 after saying: E: b"),
        (Exited(1, signal="SIGKILL", out_of_memory=True), "this machine ran out of memory (SIGKILL)"),
        (ProtocolError("not JSON"), "said something that makes no sense: not JSON."),
    ],
)
def test_the_cause_of_death_is_told(saying: Message, words: str) -> None:
    """The message names signal or exit code; the detail has it too, with the last log lines; it may be tried again."""
    history = busy()
    history.backend.say("cpu:0", saying)
    end = ends(history.wait(1.0))[0]
    assert isinstance(end, Failed)
    assert words in end.message
    assert end.retry
    assert end.hint
    if isinstance(saying, Exited):
        assert end.detail.startswith(end.message)
        assert end.detail.endswith(saying.log)


def test_progress_is_a_sign_of_life() -> None:
    """A span may take for ever, as long as it says something within the stall limit."""
    history = busy()
    for _ in range(10):
        history.backend.say("cpu:0", progress(history.run()), after_s=STALL_S - 1)
        history.wait(STALL_S - 1)
    assert history.backend.killed == []
    assert faults(history.wait(STALL_S + 1)) == [("worker", "worker_stalled")]


def test_idle_workers_may_be_silent() -> None:
    """The stall limit is for spans."""
    history = History()
    history.wait(100 * STALL_S)
    assert history.backend.killed == []
    assert history.device().state == "idle"


def test_a_worker_that_never_gets_ready_is_replaced() -> None:
    """It is killed after start_s, and the device is blamed."""
    history = History(start_s=START_S)
    history.backend.opening = lambda device, pid: (1e9, Ready(device, pid))
    history.backend.kill("cpu:0")
    history.wait(START_S + 1)
    assert history.backend.killed == ["cpu:0", "cpu:0"]
    assert "wasn't ready within 300 s" in history.device().reason


def test_a_worker_on_the_wrong_card_is_refused() -> None:
    """It gets no work, and the device says why."""
    history = History()
    history.backend.opening = lambda _, pid: (0.5, Ready("GPU-other", pid))
    history.backend.kill("cpu:0")
    history.wait(1.0)
    assert history.pool.plan(task(), 0) is None
    assert history.device().reason == "The worker for cpu:0 found itself on GPU-other."


def broken(history: History) -> None:
    """From now on, workers die while they start."""
    history.backend.opening = lambda _, pid: (0.0, Exited(pid, code=1, log="ImportError: no module"))
    history.backend.kill("cpu:0")


def test_a_device_that_fails_again_and_again_is_sick_and_rests() -> None:
    """Five faults in a row, ever longer pauses between them; then it is left alone for half a minute."""
    history = History()
    broken(history)
    history.wait(10.0)
    assert history.device().state == "sick"
    assert history.device().reason.endswith("exit code 1 after saying: ImportError: no module.")
    assert len(history.backend.spawned) == 5
    history.wait(19.0)
    assert len(history.backend.spawned) == 5
    history.wait(5.0)
    assert len(history.backend.spawned) == 6
    assert history.device().state == "sick"


def test_a_sick_device_that_recovers_works_again() -> None:
    """It is tried again by itself, and one finished span clears its name."""
    history = History()
    broken(history)
    history.wait(10.0)
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    history.wait(30.0)
    assert history.device().state == "idle"
    history.start(task())
    history.backend.say("cpu:0", done(history.run()))
    history.wait(5.0)
    history.backend.die("cpu:0")
    history.wait(0.01)
    assert history.device().state == "idle"


def test_a_sick_device_that_fails_once_more_is_sick_at_once() -> None:
    """Getting ready isn't enough to be trusted again."""
    history = History()
    broken(history)
    history.wait(10.0)
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    history.wait(30.0)
    history.backend.die("cpu:0")
    history.wait(0.0)
    assert history.device().state == "sick"


def test_a_sick_device_doesnt_block_the_others() -> None:
    """Work goes where it can be done."""
    history = History(2)
    history.wait(1.0)
    broken(history)
    history.wait(10.0)
    assert [device.state for device in history.pool.devices()] == ["sick", "idle"]
    assert [device for device, _ in history.start(task(strategy="split"))] == ["cpu:1"]


def test_a_late_death_is_no_reason_to_wait() -> None:
    """A worker that served for a while is replaced in the same moment."""
    history = busy()
    history.wait(10.0)
    history.backend.die("cpu:0")
    history.wait(0.01)
    assert history.device().state == "idle"


def test_faults_of_the_job_are_not_the_devices() -> None:
    """Ten bad inputs in a row leave worker and device as they were."""
    history = busy()
    for _ in range(10):
        history.backend.say("cpu:0", failed(history.run(), "no_face"))
        assert faults(history.wait(0.1)) == [("job", "no_face")]
        history.start(task())
    assert history.backend.spawned == ["cpu:0"]


@pytest.mark.parametrize(("code", "sick"), [("out_of_memory", False), ("device_error", True)])
def test_a_worker_that_reports_its_own_fault_is_replaced(code: str, sick: bool) -> None:
    """Out of memory gets a fresh process and no blame; an error of the card is blamed on it."""
    history = busy(backoff=Backoff(sick_after=1))
    history.backend.say("cpu:0", failed(history.run(), code, fault="worker"))
    assert faults(history.wait(1.0)) == [("worker", code)]
    assert ("cpu:0", Stop()) in history.backend.sent
    assert (history.device().state == "sick") is sick


def test_cancel_tells_the_worker() -> None:
    """The span ends as cancelled, the worker stays warm."""
    history = busy()
    history.pool.cancel("task")
    events = history.wait(0.0)
    assert history.backend.sent[-1] == ("cpu:0", Cancel("task"))
    assert faults(events) == [("cancelled", "cancelled")]
    assert history.device().state == "idle"
    assert history.backend.killed == []


def test_cancel_of_a_deaf_worker_kills_it() -> None:
    """After cancel_s; nobody is blamed."""
    history = busy(backoff=Backoff(sick_after=1))
    history.backend.deaf.add("cpu:0")
    history.pool.cancel("task")
    history.wait(CANCEL_S - 1)
    assert history.backend.killed == []
    assert faults(history.wait(2.0)) == [("cancelled", "cancelled")]
    assert history.backend.killed == ["cpu:0"]
    assert history.device().state == "idle"


@pytest.mark.parametrize("ending", ["done", "failed", "death", "progress and death"])
def test_cancel_crossing_the_end_is_still_cancelled(ending: str) -> None:
    """Whatever the worker said before it heard us, the span was cancelled, and exactly once."""
    history = busy(backoff=Backoff(sick_after=1))
    history.backend.deaf.add("cpu:0")
    history.pool.cancel("task")
    if ending == "done":
        history.backend.say("cpu:0", done(history.run()))
    elif ending == "failed":
        history.backend.say("cpu:0", failed(history.run(), "no_face"))
    else:
        if ending.startswith("progress"):
            history.backend.say("cpu:0", progress(history.run()))
        history.backend.die("cpu:0", "SIGSEGV")
    history.wait(CANCEL_S + 1)
    assert faults(history.seen) == [("cancelled", "cancelled")]
    assert len(ends(history.seen)) == 1
    assert history.device().state == "idle"


def test_cancel_of_a_span_whose_worker_is_being_killed() -> None:
    """It ends as cancelled, though we had another reason to kill; the device is still blamed for that."""
    history = busy(backoff=Backoff(sick_after=1))
    history.backend.immortal.add("cpu:0")
    history.backend.say("cpu:0", ProtocolError("blah"))
    history.wait(1.0)
    history.pool.cancel("task")
    history.backend.die("cpu:0")
    assert faults(history.wait(1.0)) == [("cancelled", "cancelled")]
    assert "makes no sense" in history.device().reason
    assert history.device().state == "sick"


def test_cancel_of_several_spans_and_of_nothing() -> None:
    """Each running span of the task ends; other tasks go on; an unknown task is no error."""
    history = History(3)
    history.wait(0.0)
    history.start(replace(task(strategy="split"), todo=grid(48)))
    history.start(task(name="other"))
    history.pool.cancel("task")
    history.pool.cancel("task")
    history.pool.cancel("nobody")
    assert faults(history.wait(1.0)) == [("cancelled", "cancelled")] * 2
    assert history.pool.running_spans("other") == (Span(0, 24),)


@pytest.mark.parametrize("late", [done, progress])
def test_a_condemned_worker_isnt_listened_to(late: Callable[[RunSpan], Message]) -> None:
    """What it says between the kill and its end changes nothing: the span has one end."""
    history = busy()
    history.backend.immortal.add("cpu:0")
    history.backend.say("cpu:0", ProtocolError("blah"))
    history.backend.say("cpu:0", late(history.run()), after_s=1.0)
    assert [event for event in history.wait(2.0) if isinstance(event, Event)] == []
    history.backend.die("cpu:0")
    assert faults(history.wait(1.0)) == [("worker", "worker_nonsense")]


def test_a_process_that_survives_sigkill_is_given_up() -> None:
    """Its span goes elsewhere, its device is sick until the process is gone, and the pool goes on."""
    history = busy(2)
    history.backend.immortal.add("cpu:0")
    history.backend.say("cpu:0", ProtocolError("blah"))
    assert faults(history.wait(KILL_S - 1)) == []
    assert faults(history.wait(2.0)) == [("worker", "worker_nonsense")]
    assert history.device().state == "sick"
    assert "does not die" in history.device().reason
    assert [device for device, _ in history.start(task())] == ["cpu:1"]
    history.backend.die("cpu:0")
    history.wait(1.0)
    assert history.device().state == "idle"


def test_an_idle_worker_that_dies_is_replaced() -> None:
    """No span, no Failed; only the device changes."""
    history = History()
    history.wait(10.0)
    history.backend.die("cpu:0")
    events = history.wait(1.0)
    assert ends(events) == []
    assert history.backend.spawned == ["cpu:0", "cpu:0"]
    assert history.device().state == "idle"


def test_recycling_after_so_many_spans() -> None:
    """The worker is asked to end between spans, and nobody is blamed."""
    history = History(recycle_spans=2, backoff=Backoff(sick_after=1))
    for number in range(4):
        history.wait(1.0)
        history.start(task())
        history.backend.say("cpu:0", done(history.run()))
        history.wait(1.0)
        assert len(history.backend.spawned) == 1 + (number + 1) // 2
    assert history.device().state == "idle"


def test_recycling_of_a_worker_that_has_grown() -> None:
    """When its memory after a span is so much more than after its first one: a large worker isn't a growing one."""
    history = busy(recycle_bytes=1000)
    for rss_bytes in (5000, 6000):
        history.backend.say("cpu:0", done(history.run(), rss_bytes=rss_bytes))
        history.wait(1.0)
        assert history.backend.spawned == ["cpu:0"]
        history.start(task())
    history.backend.say("cpu:0", done(history.run(), rss_bytes=6001))
    history.wait(1.0)
    assert history.backend.spawned == ["cpu:0", "cpu:0"]


def test_a_recycled_worker_that_doesnt_end_is_killed() -> None:
    """Politeness has a limit, and the device isn't blamed."""
    history = busy(recycle_spans=1, backoff=Backoff(sick_after=1))
    history.backend.deaf.add("cpu:0")
    history.backend.say("cpu:0", done(history.run()))
    history.wait(6.0)
    assert history.backend.killed == ["cpu:0"]
    assert history.device().state == "idle"


def test_drain_lets_the_span_finish() -> None:
    """Then the worker ends, and the device gets nothing until it is resumed."""
    history = busy()
    history.pool.drain("cpu:0", "for a game")
    history.wait(1.0)
    assert history.device().state == "busy"
    history.backend.say("cpu:0", done(history.run()))
    events = history.wait(1.0)
    assert states(events)[-1] == "drained"
    assert history.device().reason == "for a game"
    assert history.device().worker_pid is None
    assert history.start(task()) == []
    history.pool.resume("cpu:0")
    assert states(history.wait(1.0)) == ["starting", "idle"]


@pytest.mark.parametrize("moment", ["idle", "starting", "waiting to start", "dying"])
def test_drain_at_any_moment(moment: str) -> None:
    """Whatever the worker is doing, the device ends up drained, and comes back."""
    history = busy() if moment == "dying" else History()
    if moment == "dying":
        history.backend.say("cpu:0", ProtocolError("blah"))
    elif moment == "waiting to start":
        broken(history)
    if moment != "starting":
        history.wait(0.0)
    spawned = len(history.backend.spawned)
    history.pool.drain("cpu:0")
    history.wait(30.0)
    assert history.device().state == "drained"
    assert len(history.backend.spawned) == spawned
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    history.pool.resume("cpu:0")
    history.wait(1.0)
    assert history.device().state == "idle"


def test_resume_of_a_sick_device_tries_at_once() -> None:
    """A person knows better than a pause."""
    history = History()
    broken(history)
    history.wait(10.0)
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    history.pool.resume("cpu:0")
    history.wait(0.01)
    assert history.device().state == "idle"


def test_split_steals_work_at_span_boundaries() -> None:
    """A fast device takes more spans than a slow one; nobody waits while there is work."""
    seconds = {"cpu:0": 1.0, "cpu:1": 3.0}
    history = History(2, lambda device, run: [(seconds[device], done(run))])
    history.wait(0.0)
    job = task(24 * 12, "split")
    finished = finish(history, job)
    assert len(finished) == 12
    taken = [device for device, _ in history.backend.runs()]
    assert (taken.count("cpu:0"), taken.count("cpu:1")) == (9, 3)
    assert history.clock() == pytest.approx(9.0)


def finish(history: History, job: Task) -> set[Span]:
    """Plan and poll as the daemon does, until all spans are done."""
    finished: set[Span] = set()
    while len(finished) < len(job.todo):
        running = history.pool.running_spans(job.id)
        todo = tuple(span for span in job.todo if span not in finished and span not in running)
        history.start(replace(job, todo=todo, running=running))
        events = history.pool.poll(100.0)
        finished |= {Span(end.start, end.stop) for end in ends(events) if isinstance(end, Done)}
        history.seen += events
    return finished


def test_queue_uses_one_device_at_a_time() -> None:
    """In order, whatever is idle."""
    history = History(3, lambda _, run: [(1.0, done(run))])
    history.wait(0.0)
    assert len(finish(history, task(96, "queue"))) == 4
    assert [run.start for _, run in history.backend.runs()] == [0, 24, 48, 72]
    assert history.clock() == pytest.approx(4.0)


def test_race_is_won_by_the_first_and_the_others_are_told() -> None:
    """One Done for the span; the losers stop and are idle again, and nothing is said of their end."""
    seconds = {"cpu:0": 5.0, "cpu:1": 1.0}
    history = History(2, lambda device, run: [(seconds[device], done(run))])
    history.wait(0.0)
    assert history.start(task(24, "race")) == [("cpu:0", Span(0, 24)), ("cpu:1", Span(0, 24))]
    assert history.pool.running_spans("task") == (Span(0, 24),)
    history.wait(1.5)
    assert len(ends(history.seen)) == 1
    assert [device.state for device in history.pool.devices()] == ["idle", "idle"]
    assert history.pool.running_spans("task") == ()
    assert ("cpu:0", Cancel("task")) in history.backend.sent


def test_the_losers_of_a_race_are_warm_again_in_under_a_second() -> None:
    """They are told in the moment it is won, keep their process and their model, and take the next span."""
    history = History(3, lambda device, run: [(1.0 if device == "cpu:1" else 60.0, done(run))])
    history.wait(10.0)
    before = [device.worker_pid for device in history.pool.devices()]
    history.start(task(24, "race", model="musetalk"))
    history.wait(1.0)
    assert len(ends(history.seen)) == 1
    won_at = history.clock()
    history.wait(0.5)
    assert [(device.state, device.model) for device in history.pool.devices()] == [("idle", "musetalk")] * 3
    assert [device.worker_pid for device in history.pool.devices()] == before
    assert len(history.start(task(24, "race", name="next"))) == 3
    assert history.clock() - won_at < 1.0


def test_race_with_a_dead_heat_is_reported_once() -> None:
    """Two Done of the same span in the same moment are one."""
    history = History(2, lambda _, run: [(1.0, done(run))])
    history.wait(0.0)
    history.start(task(24, "race"))
    history.wait(5.0)
    assert len(ends(history.seen)) == 1


def test_race_survives_a_dying_device() -> None:
    """The span still runs on the other; the death is told, the late loser isn't."""
    history = History(2)
    history.wait(10.0)
    history.start(task(24, "race"))
    history.backend.die("cpu:0")
    assert faults(history.wait(0.0)) == [("worker", "worker_died")]
    assert history.pool.running_spans("task") == (Span(0, 24),)
    history.backend.say("cpu:1", done(history.run("cpu:1")))
    assert [type(end) for end in ends(history.wait(0.0))] == [Done]


def test_a_deaf_loser_of_a_race_is_killed_silently() -> None:
    """It doesn't keep its device for longer than cancel_s, and isn't blamed."""
    history = History(2, backoff=Backoff(sick_after=1))
    history.wait(0.0)
    history.start(task(24, "race"))
    history.backend.deaf.add("cpu:0")
    history.backend.say("cpu:1", done(history.run("cpu:1")))
    history.wait(CANCEL_S + 1)
    assert len(ends(history.seen)) == 1
    assert history.backend.killed == ["cpu:0"]
    assert history.device("cpu:0").state == "idle"


def test_plan_prefers_the_device_that_has_the_model() -> None:
    """A device keeps the model of its last task until its worker ends."""
    history = History(2)
    history.wait(10.0)
    musetalk = task(model="musetalk")
    history.pool.start(Plan(musetalk, (Assignment(Span(0, 24), "cpu:1"),)))
    history.backend.say("cpu:1", done(history.run("cpu:1")))
    history.wait(0.0)
    assert history.device("cpu:1").model == "musetalk"
    assert [device for device, _ in history.start(musetalk)] == ["cpu:1"]
    history.backend.die("cpu:1")
    history.wait(0.0)
    assert history.device("cpu:1").model == ""


def test_plan_leaves_out_spans_that_run_already() -> None:
    """The pool knows better than a task that was put together a moment ago."""
    history = History(3)
    history.wait(0.0)
    job = task(72, "split")
    history.pool.start(Plan(job, (Assignment(Span(0, 24), "cpu:1"),)))
    assert history.start(job) == [("cpu:0", Span(24, 48)), ("cpu:2", Span(48, 72))]
    assert history.start(job) == []


def test_plan_uses_only_devices_of_the_tasks_kind() -> None:
    """A card doesn't inspect, a processor doesn't render."""
    clock = Clock()
    backend = FakeBackend([Device("GPU-a", "cuda"), *cpu_devices(1)], clock)
    pool = Pool(backend, stall_s=STALL_S, clock=clock)
    pool.poll(0.0)
    for job, expected in ((replace(task(), kind="cuda"), "GPU-a"), (task(), "cpu:0")):
        plan = pool.plan(job, 0)
        assert plan is not None
        assert [assignment.device for assignment in plan.assignments] == [expected]
    pool.close()


def test_an_unknown_strategy_is_refused_by_name() -> None:
    """With the names that there are."""
    with pytest.raises(ValueError, match="'fastest'; there are auto, queue, race, split"):
        History().pool.plan(task(strategy="fastest"), 0)


def test_start_refuses_a_device_that_isnt_idle_or_is_named_twice() -> None:
    """And starts nothing of such a plan."""
    history = busy(2)
    spans = grid(48)
    for devices in (("cpu:1", "cpu:0"), ("cpu:1", "cpu:1")):
        assignments = tuple(Assignment(span, device) for span, device in zip(spans, devices, strict=True))
        with pytest.raises(ValueError, match="not idle"):
            history.pool.start(Plan(task(), assignments))
    assert len(history.backend.runs()) == 1


def test_start_refuses_a_payload_that_cant_be_sent() -> None:
    """The device stays idle."""
    history = History()
    history.wait(0.0)
    with pytest.raises(WireError):
        history.start(task(payload={"path": object()}))
    assert history.device().state == "idle"


def test_wake_ends_poll() -> None:
    """Also from another thread, also before poll begins, and only once."""
    history = busy(stall_s=1e9)
    waker = threading.Thread(target=history.pool.wake)
    waker.start()
    waker.join()
    assert history.pool.poll(1000.0) == []
    assert history.clock() < 100.0
    assert history.pool.poll(1000.0) == []
    assert history.clock() >= 1000.0


def test_close_asks_then_kills() -> None:
    """The polite end is waited for, no longer than the grace, and then the backend is closed."""
    history = busy(2)
    history.backend.deaf.add("cpu:0")
    history.pool.close(grace_s=3.0)
    assert history.backend.sent[-2:] == [("cpu:0", Stop()), ("cpu:1", Stop())]
    assert history.backend.closed
    assert history.clock() == pytest.approx(4.0)
    history.pool.wake()


def test_close_waits_no_longer_than_it_must() -> None:
    """Workers that end when asked cost no time."""
    history = busy(3)
    history.pool.close(grace_s=1000.0)
    assert history.clock() < 10.0
    assert history.backend.killed == []


def test_a_flood_of_events_is_passed_on_whole() -> None:
    """A hundred progress messages in one moment are a hundred events."""
    history = busy()
    for unit in range(100):
        history.backend.say("cpu:0", progress(history.run(), unit))
    assert len([event for event in history.wait(0.0) if isinstance(event, Event)]) == 100


def simulate(strategy: str, jobs: int, every_s: float, devices: int = 4, span_s: float = 1.0) -> tuple[float, float]:
    """Jobs of 16 spans arrive one after another: seconds until all are done, and the mean from arrival to end."""
    history = History(devices, lambda _, run: [(span_s, done(run))])
    history.wait(0.0)
    began = history.clock()
    todo = {str(n): set(grid(24 * 16)) for n in range(jobs)}
    ended: dict[str, float] = {}
    while len(ended) < jobs:
        now = history.clock() - began
        arrived = [name for name in todo if int(name) * every_s <= now and name not in ended]
        place(history, strategy, {name: todo[name] for name in arrived})
        next_arrival = min((int(n) * every_s for n in todo if int(n) * every_s > now), default=now + 1000.0)
        for end in ends(history.pool.poll(next_arrival - now)):
            todo[end.task].discard(Span(end.start, end.stop))
            if not todo[end.task]:
                ended[end.task] = history.clock() - began
    return max(ended.values()), sum(ended[n] - int(n) * every_s for n in ended) / jobs


def place(history: History, strategy: str, todo: dict[str, set[Span]]) -> None:
    """One round of the daemon: running jobs first, then those that wait, until nothing more starts."""
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
    """A job that had the pool to itself lets a newcomer begin at its next span boundary."""
    history = History(2, lambda _, run: [(1.0, done(run))])
    history.wait(0.0)
    first = {"first": set(grid(24 * 8))}
    place(history, "auto", first)
    assert len(history.pool.running_spans("first")) == 2
    for end in ends(history.wait(1.0)):
        first["first"].discard(Span(end.start, end.stop))
    place(history, "auto", {**first, "second": set(grid(24 * 8))})
    assert len(history.pool.running_spans("first")) == 1
    assert len(history.pool.running_spans("second")) == 1
