"""What workers do, and how the supervisor reacts: histories without processes or real time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gpu_pool.backoff import Backoff
from gpu_pool.types import (
    Cancel,
    Device,
    Done,
    Event,
    Exited,
    Failed,
    Progress,
    ProtocolError,
    Ready,
    RunSpan,
    Span,
    Stop,
    Task,
    grid,
)
from tests.gpu_pool.fake import Message, make_done, make_failed, make_progress
from tests.gpu_pool.history import (
    CANCEL_S,
    KILL_S,
    STALL_S,
    START_S,
    History,
    break_workers,
    list_ends,
    list_faults,
    list_states,
    make_task,
    start_busy,
)


def test_workers_are_spawned_at_once() -> None:
    """All of them, before the first poll."""
    assert History(3).backend.spawned == ["cpu:0", "cpu:1", "cpu:2"]


def test_a_device_starts_and_gets_idle() -> None:
    """Its states are reported once each; the worker's pid and model come with Ready."""
    history = History()
    history.backend.opening = lambda device, pid: (2.0, Ready(device, pid, {"model": "musetalk"}))
    history.backend.kill("cpu:0")
    assert list_states(history.wait(5.0)) == ["starting", "idle"]
    assert history.device().model == "musetalk"
    assert history.device().worker_pid == 1001


MaybeMessage = Message | None


@pytest.mark.parametrize(
    ("message", "code"),
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
def test_a_worker_that_fails_costs_its_span_and_is_replaced(message: MaybeMessage, code: str) -> None:
    """The span ends as the worker's fault, once, and another worker becomes ready."""
    history = start_busy()
    history.wait(5.0)
    if message:
        history.backend.say("cpu:0", message)
    events = history.wait(STALL_S)
    assert list_faults(events) == [("worker", code)]
    assert len(list_ends(events)) == 1
    assert list_ends(events)[0].start == 0
    assert list_states(events)[-2:] == ["starting", "idle"]
    assert history.backend.spawned == ["cpu:0", "cpu:0"]
    assert history.pool.running_spans("task") == ()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Exited(1, signal="SIGBUS", log="tail"), "The worker on cpu:0 was killed by SIGBUS."),
        (Exited(1, code=3), "The worker on cpu:0 ended by itself with exit code 3."),
        (
            Exited(1, code=1, log="a\nE: b"),
            "The worker on cpu:0 ended by itself with exit code 1; its last line was: E: b.",
        ),
        (Exited(1, signal="SIGKILL", out_of_memory=True), "this machine ran out of memory (SIGKILL)"),
        (ProtocolError("not JSON"), "sent an invalid message: not JSON."),
    ],
)
def test_the_failure_explains_the_exit(message: Message, words: str) -> None:
    """It has the signal or exit code; so has the detail, with the last log lines."""
    history = start_busy()
    history.backend.say("cpu:0", message)
    end = list_ends(history.wait(1.0))[0]
    assert isinstance(end, Failed)
    assert words in end.message
    assert end.retry
    assert end.hint
    if isinstance(message, Exited):
        assert end.detail.startswith(end.message)
        assert end.detail.endswith(message.log)


def test_progress_moves_the_deadline() -> None:
    """A span may take for ever, as long as it reports something within the stall limit."""
    history = start_busy()
    for _ in range(10):
        history.backend.say("cpu:0", make_progress(history.run()), after_s=STALL_S - 1)
        history.wait(STALL_S - 1)
    assert history.backend.killed == []
    assert list_faults(history.wait(STALL_S + 1)) == [("worker", "worker_stalled")]


def test_idle_workers_may_be_silent() -> None:
    """The stall limit is for spans."""
    history = History()
    history.wait(100 * STALL_S)
    assert history.backend.killed == []
    assert history.device().state == "idle"


def test_a_worker_that_never_gets_ready_is_replaced() -> None:
    """It is killed after start_s, and the device has the reason."""
    history = History(start_s=START_S)
    history.backend.opening = lambda device, pid: (1e9, Ready(device, pid))
    history.backend.kill("cpu:0")
    history.wait(START_S + 1)
    assert history.backend.killed == ["cpu:0", "cpu:0"]
    assert "wasn't ready within 300 s" in history.device().reason


def test_a_worker_on_the_wrong_card_is_refused() -> None:
    """It gets no span, and the device has the reason."""
    history = History()
    history.backend.opening = lambda _, pid: (0.5, Ready("GPU-other", pid))
    history.backend.kill("cpu:0")
    history.wait(1.0)
    assert history.pool.plan(make_task(), 0) is None
    assert history.device().reason == "The worker for cpu:0 runs on GPU-other instead."


def test_a_device_with_five_faults_in_a_row_is_sick() -> None:
    """The pauses between them grow; then no worker is started for half a minute."""
    history = History()
    break_workers(history)
    history.wait(10.0)
    assert history.device().state == "sick"
    assert history.device().reason.endswith("exit code 1; its last line was: ImportError: no module.")
    assert len(history.backend.spawned) == 5
    history.wait(19.0)
    assert len(history.backend.spawned) == 5
    history.wait(5.0)
    assert len(history.backend.spawned) == 6
    assert history.device().state == "sick"


def test_a_sick_device_that_recovers_works_again() -> None:
    """It is tried again by itself, and one finished span resets its faults."""
    history = History()
    break_workers(history)
    history.wait(10.0)
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    history.wait(30.0)
    assert history.device().state == "idle"
    history.start(make_task())
    history.backend.say("cpu:0", make_done(history.run()))
    history.wait(5.0)
    history.backend.die("cpu:0")
    history.wait(0.01)
    assert history.device().state == "idle"


def test_a_sick_device_that_fails_once_more_is_sick_at_once() -> None:
    """A worker that becomes ready doesn't reset them."""
    history = History()
    break_workers(history)
    history.wait(10.0)
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    history.wait(30.0)
    history.backend.die("cpu:0")
    history.wait(0.0)
    assert history.device().state == "sick"


def test_a_sick_device_doesnt_block_the_others() -> None:
    """Spans run on the others."""
    history = History(2)
    history.wait(1.0)
    break_workers(history)
    history.wait(10.0)
    assert [device.state for device in history.pool.devices()] == ["sick", "idle"]
    assert [device for device, _ in history.start(make_task(strategy="split"))] == ["cpu:1"]


def test_a_late_death_has_no_pause() -> None:
    """A worker that was ready for a while is replaced in the same moment."""
    history = start_busy()
    history.wait(10.0)
    history.backend.die("cpu:0")
    history.wait(0.01)
    assert history.device().state == "idle"


def test_faults_of_the_job_are_not_the_devices() -> None:
    """Ten bad inputs in a row leave worker and device as they were."""
    history = start_busy()
    for _ in range(10):
        history.backend.say("cpu:0", make_failed(history.run(), "no_face"))
        assert list_faults(history.wait(0.1)) == [("job", "no_face")]
        history.start(make_task())
    assert history.backend.spawned == ["cpu:0"]


@pytest.mark.parametrize(("code", "sick"), [("out_of_memory", False), ("device_error", True)])
def test_a_worker_that_reports_its_own_fault_is_replaced(code: str, sick: bool) -> None:
    """Out of memory doesn't count against the device; an error of the card does."""
    history = start_busy(backoff=Backoff(sick_after=1))
    history.backend.say("cpu:0", make_failed(history.run(), code, fault="worker"))
    assert list_faults(history.wait(1.0)) == [("worker", code)]
    assert ("cpu:0", Stop()) in history.backend.sent
    assert (history.device().state == "sick") is sick


def test_cancel_is_sent_to_the_worker() -> None:
    """The span ends as cancelled, and the worker stays warm."""
    history = start_busy()
    history.pool.cancel("task")
    events = history.wait(0.0)
    assert history.backend.sent[-1] == ("cpu:0", Cancel("task"))
    assert list_faults(events) == [("cancelled", "cancelled")]
    assert history.device().state == "idle"
    assert history.backend.killed == []


def test_cancel_of_a_deaf_worker_kills_it() -> None:
    """After cancel_s; it doesn't count against the device."""
    history = start_busy(backoff=Backoff(sick_after=1))
    history.backend.deaf.add("cpu:0")
    history.pool.cancel("task")
    history.wait(CANCEL_S - 1)
    assert history.backend.killed == []
    assert list_faults(history.wait(2.0)) == [("cancelled", "cancelled")]
    assert history.backend.killed == ["cpu:0"]
    assert history.device().state == "idle"


@pytest.mark.parametrize("ending", ["done", "failed", "death", "progress and death"])
def test_cancel_crossing_the_end_is_still_cancelled(ending: str) -> None:
    """Whatever the worker sent before it got the cancel, the span ends as cancelled, once."""
    history = start_busy(backoff=Backoff(sick_after=1))
    history.backend.deaf.add("cpu:0")
    history.pool.cancel("task")
    if ending == "done":
        history.backend.say("cpu:0", make_done(history.run()))
    elif ending == "failed":
        history.backend.say("cpu:0", make_failed(history.run(), "no_face"))
    else:
        if ending.startswith("progress"):
            history.backend.say("cpu:0", make_progress(history.run()))
        history.backend.die("cpu:0", "SIGSEGV")
    history.wait(CANCEL_S + 1)
    assert list_faults(history.seen) == [("cancelled", "cancelled")]
    assert len(list_ends(history.seen)) == 1
    assert history.device().state == "idle"


def test_a_processor_is_not_sick_by_what_its_jobs_do() -> None:
    """Files that crash what decodes them would stop all other jobs; a worker that dies by itself still counts."""
    history = start_busy(backoff=Backoff(sick_after=2))
    for _ in range(4):
        history.backend.die("cpu:0", "SIGSEGV")
        history.wait(1.0)
        assert history.device().state == "idle"
        history.start(make_task())
    history.backend.say("cpu:0", make_done(history.run()))
    for _ in range(2):
        history.wait(1.0)
        history.backend.die("cpu:0", "SIGSEGV")
    history.wait(0.0)
    assert history.device().state == "sick"


def test_cancel_of_a_span_whose_worker_is_being_killed() -> None:
    """It ends as cancelled, also where the worker survives the kill for a while."""
    history = start_busy(backoff=Backoff(sick_after=1))
    history.backend.immortal.add("cpu:0")
    history.backend.say("cpu:0", ProtocolError("blah"))
    history.wait(1.0)
    history.pool.cancel("task")
    history.backend.die("cpu:0")
    assert list_faults(history.wait(1.0)) == [("cancelled", "cancelled")]
    assert history.device().state == "idle"


def test_cancel_of_several_spans_and_of_nothing() -> None:
    """Each running span of the task ends; other tasks go on; an unknown task is no error."""
    history = History(3)
    history.wait(0.0)
    history.start(replace(make_task(strategy="split"), todo=grid(48)))
    history.start(make_task(name="other"))
    history.pool.cancel("task")
    history.pool.cancel("task")
    history.pool.cancel("unknown")
    assert list_faults(history.wait(1.0)) == [("cancelled", "cancelled")] * 2
    assert history.pool.running_spans("other") == (Span(0, 24),)


@pytest.mark.parametrize("late", [make_done, make_progress])
def test_messages_of_a_killed_worker_are_ignored(late: Callable[[RunSpan], Message]) -> None:
    """What it sends between the kill and its exit changes nothing: the span has one end."""
    history = start_busy()
    history.backend.immortal.add("cpu:0")
    history.backend.say("cpu:0", ProtocolError("blah"))
    history.backend.say("cpu:0", late(history.run()), after_s=1.0)
    assert [event for event in history.wait(2.0) if isinstance(event, Event)] == []
    history.backend.die("cpu:0")
    assert list_faults(history.wait(1.0)) == [("worker", "worker_nonsense")]


def test_a_process_that_survives_sigkill_is_given_up() -> None:
    """Its span ends, its device is sick until the process has ended, and the pool goes on."""
    history = start_busy(2)
    history.backend.immortal.add("cpu:0")
    history.backend.say("cpu:0", ProtocolError("blah"))
    assert list_faults(history.wait(KILL_S - 1)) == []
    assert list_faults(history.wait(2.0)) == [("worker", "worker_nonsense")]
    assert history.device().state == "sick"
    assert "does not die" in history.device().reason
    assert [device for device, _ in history.start(make_task())] == ["cpu:1"]
    history.backend.die("cpu:0")
    history.wait(1.0)
    assert history.device().state == "idle"


def test_an_idle_worker_that_dies_is_replaced() -> None:
    """No span fails; only the device changes."""
    history = History()
    history.wait(10.0)
    history.backend.die("cpu:0")
    events = history.wait(1.0)
    assert list_ends(events) == []
    assert history.backend.spawned == ["cpu:0", "cpu:0"]
    assert history.device().state == "idle"


def test_recycling_after_so_many_spans() -> None:
    """The worker is asked to end between spans, which doesn't count against the device."""
    history = History(recycle_spans=2, backoff=Backoff(sick_after=1))
    for number in range(4):
        history.wait(1.0)
        history.start(make_task())
        history.backend.say("cpu:0", make_done(history.run()))
        history.wait(1.0)
        assert len(history.backend.spawned) == 1 + (number + 1) // 2
    assert history.device().state == "idle"


def test_recycling_of_a_worker_that_has_grown() -> None:
    """The growth since its first span counts, not its size."""
    history = start_busy(recycle_bytes=1000)
    for rss_bytes in (5000, 6000):
        history.backend.say("cpu:0", make_done(history.run(), rss_bytes=rss_bytes))
        history.wait(1.0)
        assert history.backend.spawned == ["cpu:0"]
        history.start(make_task())
    history.backend.say("cpu:0", make_done(history.run(), rss_bytes=6001))
    history.wait(1.0)
    assert history.backend.spawned == ["cpu:0", "cpu:0"]


def test_a_recycled_worker_that_doesnt_end_is_killed() -> None:
    """After stop_s; it doesn't count against the device."""
    history = start_busy(recycle_spans=1, backoff=Backoff(sick_after=1))
    history.backend.deaf.add("cpu:0")
    history.backend.say("cpu:0", make_done(history.run()))
    history.wait(6.0)
    assert history.backend.killed == ["cpu:0"]
    assert history.device().state == "idle"


def test_workers_that_are_replaced_finish_their_span() -> None:
    """Then another starts, as it does at once where the worker has no span."""
    history = start_busy()
    history.pool.replace_workers()
    history.wait(1.0)
    assert history.device().state == "busy"
    history.backend.say("cpu:0", make_done(history.run()))
    history.wait(1.0)
    assert (history.device().state, len(history.backend.spawned)) == ("idle", 2)
    history.pool.replace_workers()
    history.wait(1.0)
    assert (history.device().state, len(history.backend.spawned)) == ("idle", 3)


def test_drain_lets_the_span_finish() -> None:
    """Then the worker ends, and the device gets nothing until it is resumed."""
    history = start_busy()
    history.pool.drain("cpu:0", "for a game")
    history.wait(1.0)
    assert history.device().state == "busy"
    history.backend.say("cpu:0", make_done(history.run()))
    events = history.wait(1.0)
    assert list_states(events)[-1] == "drained"
    assert history.device().reason == "for a game"
    assert history.device().worker_pid is None
    assert history.start(make_task()) == []
    history.pool.resume("cpu:0")
    assert list_states(history.wait(1.0)) == ["starting", "idle"]


@pytest.mark.parametrize("moment", ["idle", "starting", "waiting to start", "dying"])
def test_drain_at_any_moment(moment: str) -> None:
    """Whatever the worker is doing, the device becomes drained, and returns when it is resumed."""
    history = start_busy() if moment == "dying" else History()
    if moment == "dying":
        history.backend.say("cpu:0", ProtocolError("blah"))
    elif moment == "waiting to start":
        break_workers(history)
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


@pytest.mark.parametrize("moment", ["idle", "starting", "waiting to start", "busy"])
def test_a_device_that_is_not_trusted_is_sick_until_it_is_resumed(moment: str) -> None:
    """Its span ends, no worker is started for it however long it waits, and its reason stays."""
    history = start_busy() if moment == "busy" else History()
    if moment == "waiting to start":
        break_workers(history)
    if moment != "starting":
        history.wait(0.0)
    spawned = len(history.backend.spawned)
    history.pool.condemn("cpu:0", "wrong numbers")
    if moment == "busy":
        history.backend.say("cpu:0", make_done(history.run()))
    history.wait(1000.0)
    found = history.device()
    assert (found.state, found.reason, found.retry_at_s) == ("sick", "wrong numbers", 0.0)
    assert len(history.backend.spawned) == spawned
    assert history.start(make_task()) == []
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    history.pool.resume("cpu:0") if moment == "busy" else history.pool.condemn("cpu:0", "")
    history.wait(1.0)
    assert history.device().state == "idle"


def test_resume_of_a_sick_device_tries_at_once() -> None:
    """It doesn't wait for the end of the pause."""
    history = History()
    break_workers(history)
    history.wait(10.0)
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    history.pool.resume("cpu:0")
    history.wait(0.01)
    assert history.device().state == "idle"


CARD = Device("GPU-1", "cuda", card="GPU-1", total_bytes=1 << 34, free_bytes=1 << 34)


def open_with_model(device: str, pid: int) -> tuple[float, Message]:
    return 0.0, Ready(device, pid, {"model": "musetalk", "held_bytes": 1 << 30, "load_s": 9.0})


def start_with_models(unload_s: float) -> History:
    """Return a history of a card and a processor whose workers have loaded a model."""
    history = History(devices=(CARD, Device("cpu:0", "cpu")), unload_s=unload_s)
    history.backend.opening = open_with_model
    for name in ("GPU-1", "cpu:0"):
        history.backend.kill(name)
    history.wait(2.0)
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    return history


def test_an_idle_worker_gives_its_memory_back() -> None:
    """Its process is replaced by one without a model after the time, once; the processor keeps its own."""
    history = start_with_models(unload_s=60.0)
    assert history.device("GPU-1").model == "musetalk"
    history.wait(50.0)
    assert history.backend.unloaded == []
    history.wait(20.0)
    assert history.backend.unloaded == ["GPU-1"]
    card = history.device("GPU-1")
    assert (card.state, card.model, card.held_bytes) == ("idle", "", 0)
    assert history.device("cpu:0").model == "musetalk"
    history.wait(1000.0)
    assert history.backend.unloaded == ["GPU-1"]
    assert not list_faults(history.seen)


def test_a_worker_that_has_work_keeps_its_model() -> None:
    """The time counts from the end of the last span, and a worker with a span is not asked."""
    history = start_with_models(unload_s=60.0)
    history.wait(50.0)
    history.start(Task("task", "cuda", (Span(0, 24),)))
    for _ in range(8):
        history.backend.say("GPU-1", make_progress(history.run("GPU-1"), 1))
        history.wait(15.0)
    assert not history.pool.unload("GPU-1")
    history.backend.say("GPU-1", make_done(history.run("GPU-1")))
    history.wait(50.0)
    assert history.backend.unloaded == []
    history.wait(20.0)
    assert history.backend.unloaded == ["GPU-1"]


def test_a_model_is_unloaded_at_once_and_loaded_by_the_next_worker() -> None:
    """On demand, whatever the time; a worker that later takes the place of one with a span loads it as usual."""
    history = start_with_models(unload_s=0.0)
    assert history.pool.unload("GPU-1")
    history.wait(1.0)
    assert history.backend.unloaded == ["GPU-1"]
    assert not history.pool.unload("GPU-1"), "it has no model any more"
    history.start(Task("task", "cuda", (Span(0, 24),), model="musetalk"))
    assert history.pool.has_model("GPU-1", "musetalk")
    history.backend.die("GPU-1")
    history.wait(30.0)
    assert history.backend.unloaded == ["GPU-1"]
    assert history.backend.spawned.count("GPU-1") == 4


def test_a_worker_that_starts_without_a_model_is_promised_no_memory() -> None:
    """Others may have what it gave back."""
    history = start_with_models(unload_s=0.0)
    history.backend.opening = lambda device, pid: (50.0, Ready(device, pid))
    history.pool.unload("GPU-1")
    history.wait(10.0)
    assert history.device("GPU-1").state == "starting"
    assert history.pool.open_bytes()["GPU-1"] == 0
