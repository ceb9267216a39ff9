"""Histories of cards: memory that others take, cards that go and return, two workers on one."""

from __future__ import annotations

from typing import Any

import pytest

from gpu_pool.backoff import Backoff
from gpu_pool.types import (
    Device,
    DeviceChanged,
    Done,
    Event,
    Exited,
    Failed,
    PoolEvent,
    Progress,
    Ready,
    Span,
    Task,
)
from tests.gpu_pool.fake import make_done, make_failed, make_progress
from tests.gpu_pool.history import History, list_ends, list_faults, list_states

GIB = 1 << 30


def make_card(name: str, free: float = 23, **more: Any) -> Device:
    fields = {"card": name.partition("/")[0], "total_bytes": 24 * GIB, "free_bytes": int(free * GIB)}
    return Device(name, "cuda", "Stub Card", **{**fields, **more})


def open_history(*devices: Device, **options: Any) -> History:
    history = History(devices=devices, **options)
    history.wait(10.0)
    return history


def make_task(gib: float, name: str = "task", strategy: str = "queue", spans: int = 4, model: str = "") -> Task:
    todo = tuple(Span(n, n + 1) for n in range(spans))
    return Task(name, "cuda", todo, strategy=strategy, memory_bytes=int(gib * GIB), model=model)


def start_on(history: History, task: Task) -> list[str]:
    return [device for device, _ in history.start(task)]


def report_free(history: History, name: str, gib: float, **more: Any) -> list[PoolEvent]:
    """Have the driver report so much free memory, now."""
    history.backend.change(name, free_bytes=int(gib * GIB), read_at_s=history.clock(), **more)
    return history.wait(0.0)


def test_spans_go_where_most_memory_is() -> None:
    """Among idle devices; one that has too little gets none."""
    history = open_history(make_card("GPU-a", 9), make_card("GPU-b", 20), make_card("GPU-c", 3))
    assert [start_on(history, make_task(8, name)) for name in "xyz"] == [["GPU-b"], ["GPU-a"], []]


def test_a_warm_device_is_preferred_if_it_has_the_memory() -> None:
    """What it holds itself is available to it; with too little it isn't chosen."""
    history = open_history(make_card("GPU-a"), make_card("GPU-b"))
    assert start_on(history, make_task(8, "first", model="musetalk")) == ["GPU-a"]
    history.backend.say("GPU-a", make_done(history.run("GPU-a")))
    history.wait(1.0)
    report_free(history, "GPU-a", 15, held_bytes=8 * GIB)
    assert start_on(history, make_task(9, "second", model="musetalk")) == ["GPU-a"]
    history.backend.say("GPU-a", make_done(history.run("GPU-a")))
    history.wait(1.0)
    report_free(history, "GPU-a", 0.5, held_bytes=8 * GIB)
    assert start_on(history, make_task(9, "third", model="musetalk")) == ["GPU-b"]


def test_split_leaves_out_a_card_without_memory() -> None:
    """The others share the spans."""
    history = open_history(make_card("GPU-a"), make_card("GPU-b", 2), make_card("GPU-c"))
    assert start_on(history, make_task(8, strategy="split")) == ["GPU-a", "GPU-c"]


def test_a_reserve_is_left_to_others() -> None:
    """A span that fits only with the reserve doesn't start."""
    history = open_history(make_card("GPU-a", 8.5), reserve_bytes=GIB)
    assert start_on(history, make_task(8)) == []
    assert start_on(history, make_task(7.5)) == ["GPU-a"]


def test_a_task_that_fits_nowhere_has_a_reason_to_wait() -> None:
    """When another program frees memory, the poll returns with the reading that shows it."""
    history = open_history(make_card("GPU-a", 3), make_card("GPU-b", 2))
    assert start_on(history, make_task(8)) == []
    reason = "It needs 8192 MiB of a card; the most that is free and not promised is 3072 MiB, on GPU-a."
    assert history.pool.wait_reason(make_task(8)) == reason
    events = report_free(history, "GPU-b", 12)
    assert [(e.device.id, e.device.free_bytes) for e in events if isinstance(e, DeviceChanged)] == [("GPU-b", 12 * GIB)]
    assert history.pool.wait_reason(make_task(8)) == ""
    assert start_on(history, make_task(8)) == ["GPU-b"]


def test_small_changes_of_free_memory_are_not_reported() -> None:
    """They would wake the daemon every second; the sum of several is reported."""
    history = open_history(make_card("GPU-a", 10))
    assert report_free(history, "GPU-a", 10.05) == []
    assert len(report_free(history, "GPU-a", 10.1)) == 1


def report_gauges(history: History, seconds: float, **gauges: int | None) -> int:
    """Let seconds pass, report a reading, and return how many changes of a device the pool tells."""
    history.wait(seconds)
    history.backend.change("GPU-a", read_at_s=history.clock(), **gauges)
    return sum(isinstance(event, DeviceChanged) for event in history.wait(0.0))


def test_gauges_are_reported_when_they_have_moved_and_not_too_often() -> None:
    """A card at rest wakes the daemon by nothing, and one at work every few seconds at most."""
    history = open_history(make_card("GPU-a", 10))
    assert report_gauges(history, 6, temperature_c=40, load_percent=0, power_w=70) == 1
    for step in range(20):
        assert report_gauges(history, 6, temperature_c=40 + step % 3, load_percent=step % 9, power_w=66 + step % 9) == 0
    assert report_gauges(history, 1, load_percent=98) == 1, "seconds have passed since the last report"
    assert sum(report_gauges(history, 1, load_percent=10 * (step % 9)) for step in range(20)) == 4
    assert report_gauges(history, 6, temperature_c=None) == 1


def test_two_jobs_of_the_same_instant_dont_share_a_promise() -> None:
    """The second leaves out what is promised to the first, though nothing is allocated yet."""
    history = open_history(make_card("GPU-a"), make_card("GPU-a/2"))
    assert start_on(history, make_task(14, "first")) == ["GPU-a"]
    assert start_on(history, make_task(14, "second")) == []
    assert history.pool.wait_reason(make_task(14, "second")) == ""
    assert start_on(history, make_task(9, "third")) == ["GPU-a/2"]


def test_two_workers_of_a_card_share_its_memory_as_it_is_allocated() -> None:
    """What the first has allocated is part of the driver's figure, and isn't counted twice."""
    history = open_history(make_card("GPU-a"), make_card("GPU-a/2"))
    history.start(make_task(14, "first"))
    history.backend.change("GPU-a/2", free_bytes=11 * GIB, read_at_s=11.0)
    report_free(history, "GPU-a", 11, held_bytes=12 * GIB)
    assert start_on(history, make_task(9.5, "second")) == []
    assert start_on(history, make_task(8.5, "third")) == ["GPU-a/2"]


def test_the_workers_report_counts_where_the_driver_lists_no_process() -> None:
    """As in a container; by progress and by the end of a span."""
    history = open_history(make_card("GPU-a"), make_card("GPU-a/2"))
    history.start(make_task(14, "first"))
    run = history.run("GPU-a")
    history.backend.say("GPU-a", Progress(run.task, run.start, run.stop, 0, held_bytes=12 * GIB))
    history.wait(1.0)
    history.backend.change("GPU-a/2", free_bytes=11 * GIB, read_at_s=history.clock())
    report_free(history, "GPU-a", 11)
    assert history.device("GPU-a").held_bytes == 12 * GIB
    assert start_on(history, make_task(8.5, "third")) == ["GPU-a/2"]


def test_spans_are_spread_over_the_cards_first() -> None:
    """A second worker of a card comes after the first of another."""
    history = open_history(*(make_card(name) for name in ("GPU-a", "GPU-a/2", "GPU-b", "GPU-b/2")))
    assert start_on(history, make_task(8, strategy="split", spans=2)) == ["GPU-a", "GPU-b"]


def test_facts_of_the_model_are_shown() -> None:
    """A device has the stats of Ready and of the last Done; another worker starts without."""
    history = open_history(make_card("GPU-a"))
    stats = {"model": "musetalk", "load_s": 7.5, "batch": 16, "held_bytes": 5 * GIB}
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid, stats))
    history.backend.kill("GPU-a")
    history.wait(1.0)
    report_free(history, "GPU-a", 18)
    shown = history.device("GPU-a")
    assert (shown.model, shown.load_s, shown.batch, shown.held_bytes) == ("musetalk", 7.5, 16, 5 * GIB)
    history.start(make_task(8, model="musetalk"))
    run = history.run("GPU-a")
    events = [Done(run.task, run.start, run.stop, 1.0, stats={"batch": 8})]
    history.backend.say("GPU-a", events[0])
    assert [e.device.batch for e in history.wait(0.0) if isinstance(e, DeviceChanged)] == [8]
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    history.backend.kill("GPU-a")
    history.wait(1.0)
    assert (history.device("GPU-a").model, history.device("GPU-a").load_s) == ("", 0.0)


@pytest.mark.parametrize("value", [-1, "much", None, 1e300, True, [5], 2**70])
def test_facts_that_are_no_figures_do_no_harm(value: object) -> None:
    """They come from a handler, which may send anything."""
    history = open_history(make_card("GPU-a"))
    stats = {"model": value, "load_s": value, "batch": value, "held_bytes": value}
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid, stats))
    history.backend.kill("GPU-a")
    history.wait(1.0)
    report_free(history, "GPU-a", 18)
    shown = history.device("GPU-a")
    assert 0 <= shown.held_bytes < 2**63
    assert 0 <= shown.load_s < 2**63
    assert shown.state == "idle"


def test_a_worker_that_starts_is_promised_what_others_loaded() -> None:
    """It will load the same, which the driver's figures don't show yet."""
    history = History(devices=[make_card("GPU-a"), make_card("GPU-a/2"), make_card("GPU-b")])
    stats = {"held_bytes": 5 * GIB}
    history.backend.opening = lambda device, pid: (0.0 if device == "GPU-b" else 50.0, Ready(device, pid, stats))
    for name in ("GPU-a", "GPU-a/2", "GPU-b"):
        history.backend.kill(name)
    history.wait(1.0)
    assert history.pool.open_bytes() == {"GPU-a": 5 * GIB, "GPU-a/2": 5 * GIB, "GPU-b": 5 * GIB}
    history.backend.change("GPU-b", free_bytes=18 * GIB, held_bytes=5 * GIB, read_at_s=history.clock())
    history.wait(1.0)
    assert history.pool.open_bytes()["GPU-b"] == 0
    history.backend.change("GPU-b", held_bytes=0)
    history.backend.kill("GPU-b")
    history.backend.opening = lambda device, pid: (50.0, Ready(device, pid, stats))
    history.wait(10.0)
    assert history.pool.open_bytes()["GPU-b"] == 5 * GIB


# lost cards ----------------------------------------------------------------------------------------------------------


def lose(history: History, *names: str, reason: str = "GPU is lost") -> list[PoolEvent]:
    for name in names:
        history.backend.change(name, state="lost", reason=reason)
    return history.wait(1.0)


def find(history: History, *names: str) -> list[PoolEvent]:
    for name in names:
        history.backend.change(name, state="starting", reason="")
    return history.wait(1.0)


def test_a_lost_card_costs_its_span_and_comes_back_by_itself() -> None:
    """Its worker is killed; no span starts until the driver lists it again."""
    history = open_history(make_card("GPU-a"), make_card("GPU-b"), backoff=Backoff(sick_after=1))
    history.start(make_task(8))
    assert list_faults(lose(history, "GPU-a")) == [("worker", "device_lost")]
    assert history.backend.killed == ["GPU-a"]
    assert (history.device("GPU-a").state, history.device("GPU-a").reason) == ("lost", "GPU is lost")
    assert start_on(history, make_task(8)) == ["GPU-b"]
    history.wait(1000.0)
    assert history.backend.spawned.count("GPU-a") == 1
    assert list_states(find(history, "GPU-a"), "GPU-a") == ["starting", "idle"]


@pytest.mark.parametrize("phase", ["idle", "starting", "down", "cancelling", "drained"])
def test_a_card_is_lost_at_any_moment(phase: str) -> None:
    """It is lost at once, and later has the state that it had."""
    history = open_history(make_card("GPU-a"))
    if phase == "cancelling":
        history.backend.deaf.add("GPU-a")
        history.start(make_task(8))
        history.pool.cancel("task")
    elif phase == "drained":
        history.pool.drain("GPU-a", "for a game")
        history.wait(1.0)
    elif phase != "idle":
        later = (1e6, Ready("GPU-a", 1)) if phase == "starting" else (0.0, Exited(1, code=1))
        history.backend.opening = lambda *_: later
        history.backend.kill("GPU-a")
        history.wait(0.0)
    lose(history, "GPU-a")
    assert history.device("GPU-a").state == "lost"
    assert list_faults(history.seen) == [("cancelled", "cancelled")] * (phase == "cancelling")
    history.backend.opening = lambda device, pid: (0.0, Ready(device, pid))
    find(history, "GPU-a")
    assert history.device("GPU-a").state == ("drained" if phase == "drained" else "idle")
    history.pool.resume("GPU-a")
    history.wait(1.0)
    assert history.device("GPU-a").state == "idle"


def test_a_card_can_be_drained_and_resumed_while_it_is_lost() -> None:
    """It stays lost; the request takes effect when it comes back."""
    history = open_history(make_card("GPU-a"))
    lose(history, "GPU-a")
    history.pool.drain("GPU-a", "for a game")
    history.wait(1.0)
    assert history.device("GPU-a").state == "lost"
    find(history, "GPU-a")
    assert history.device("GPU-a").state == "drained"
    lose(history, "GPU-a")
    history.pool.resume("GPU-a")
    assert list_states(history.wait(1.0), "GPU-a") == []
    assert history.backend.spawned == ["GPU-a"]


def test_a_worker_that_hangs_on_a_lost_card_is_given_up() -> None:
    """SIGKILL doesn't end a process inside the driver: its span runs elsewhere."""
    history = open_history(make_card("GPU-a"))
    history.backend.immortal.add("GPU-a")
    history.start(make_task(8))
    lose(history, "GPU-a")
    assert list_faults(history.wait(10.0)) == [("worker", "device_lost")]
    find(history, "GPU-a")
    assert history.device("GPU-a").state == "sick"
    history.backend.die("GPU-a")
    history.wait(1.0)
    assert history.device("GPU-a").state == "idle"


def test_a_card_that_appears_later_joins() -> None:
    """It is reported, gets a worker, and then a span."""
    history = open_history(make_card("GPU-a", 3))
    history.backend.add(make_card("GPU-new"))
    assert list_states(history.wait(1.0), "GPU-new") == ["starting", "idle"]
    assert start_on(history, make_task(8)) == ["GPU-new"]


def test_a_silent_driver_stops_new_spans_only() -> None:
    """A running worker goes on; no span is placed by stale figures."""
    history = open_history(make_card("GPU-a"), make_card("GPU-b"))
    history.start(make_task(8))
    for name in ("GPU-a", "GPU-b"):
        history.backend.change(name, reason="The driver doesn't answer.")
    history.wait(1.0)
    assert start_on(history, make_task(8, "second")) == []
    assert history.device("GPU-b").reason == "The driver doesn't answer."
    words = "No GPU is in service: GPU-a is busy (The driver doesn't answer.), "
    assert history.pool.wait_reason(make_task(8, "second")).startswith(words)
    history.backend.say("GPU-a", make_done(history.run("GPU-a")))
    assert [type(end) for end in list_ends(history.wait(1.0))] == [Done]
    assert history.backend.killed == []
    history.backend.change("GPU-a", reason="")
    history.wait(0.0)
    assert start_on(history, make_task(8, "second")) == ["GPU-a"]


# what is in the way --------------------------------------------------------------------------------------------------


def test_a_task_that_fits_has_no_reason_to_wait() -> None:
    """On an idle device, on a busy one, and while workers start."""
    history = History(devices=[make_card("GPU-a")])
    assert history.pool.wait_reason(make_task(8)) == ""
    history.wait(1.0)
    assert history.pool.wait_reason(make_task(8)) == ""
    history.start(make_task(8))
    assert history.pool.wait_reason(make_task(8, "second")) == ""


def test_a_task_without_a_device_of_its_kind() -> None:
    """It waits because there is none."""
    assert History(1).pool.wait_reason(make_task(8)) == "There is no GPU."
    assert (
        open_history(make_card("GPU-a")).pool.wait_reason(Task("t", "cpu", (Span(0, 1),))) == "There is no CPU worker."
    )


def test_a_task_whose_devices_are_out_of_service() -> None:
    """The reason has the state and the reason of each."""
    history = open_history(make_card("GPU-a"), make_card("GPU-b"), make_card("GPU-c"), backoff=Backoff(sick_after=1))
    history.pool.drain("GPU-a", "for a game")
    lose(history, "GPU-b")
    history.backend.die("GPU-c", "SIGBUS")
    history.wait(1.0)
    assert history.pool.wait_reason(make_task(8)) == (
        "No GPU is in service: GPU-a is drained (for a game), GPU-b is lost (GPU is lost),"
        " GPU-c is sick (The worker on GPU-c was killed by SIGBUS.)."
    )


def test_a_sick_device_has_a_time_of_its_next_try() -> None:
    """By the pool's clock; other devices have none."""
    history = open_history(make_card("GPU-a"), make_card("GPU-b"), backoff=Backoff(sick_after=1, sick_s=30.0))
    history.backend.opening = lambda _, pid: (0.0, Exited(pid, code=1))
    history.backend.kill("GPU-a")
    history.wait(1.0)
    assert history.device("GPU-a").retry_at_s == pytest.approx(40.0, abs=1.0)
    assert history.device("GPU-b").retry_at_s == 0.0


# out of memory -------------------------------------------------------------------------------------------------------


def run_out_of_memory(history: History, name: str) -> Failed:
    """Have the worker report that its card is full."""
    history.backend.say(name, make_failed(history.run(name), "out_of_memory", fault="worker"))
    end = list_ends(history.wait(1.0))[0]
    assert isinstance(end, Failed)
    return end


def test_a_task_that_ran_out_of_memory_goes_where_more_is() -> None:
    """Without such a device it waits for a while only: the figure may have been wrong."""
    history = open_history(make_card("GPU-a", 12), make_card("GPU-b", 9))
    assert start_on(history, make_task(8)) == ["GPU-a"]
    end = run_out_of_memory(history, "GPU-a")
    assert (end.fault, end.code) == ("worker", "out_of_memory")
    assert history.device("GPU-a").state == "idle"
    assert start_on(history, make_task(8)) == []
    assert history.pool.wait_reason(make_task(8)) == (
        "It ran out of memory on GPU-a, where 12288 MiB were left: it waits up to a minute for a device with more."
    )
    assert start_on(history, make_task(8, "another")) == ["GPU-a"]
    report_free(history, "GPU-b", 20)
    assert history.pool.wait_reason(make_task(8)) == ""
    assert start_on(history, make_task(8)) == ["GPU-b"]


def test_a_task_that_ran_out_of_memory_is_tried_again_after_a_minute() -> None:
    """On the same card, if there is no other."""
    history = open_history(make_card("GPU-a", 12))
    history.start(make_task(8))
    run_out_of_memory(history, "GPU-a")
    history.wait(50.0)
    assert start_on(history, make_task(8)) == []
    history.wait(10.0)
    assert history.pool.wait_reason(make_task(8)) == ""
    assert start_on(history, make_task(8)) == ["GPU-a"]


def test_the_detail_of_a_death_has_the_memory() -> None:
    """The cause, what the worker held, what was free on the card, then the log."""
    history = open_history(make_card("GPU-a"))
    history.start(make_task(8))
    report_free(history, "GPU-a", 1, held_bytes=8 * GIB)
    end = Exited(1, signal="SIGBUS", log="line 1\nline 2", peak_bytes=3 * GIB)
    history.backend.say("GPU-a", end)
    assert list_ends(history.wait(0.0))[0].detail.splitlines() == [  # type: ignore[union-attr]
        "The worker on GPU-a was killed by SIGBUS.",
        "The worker held 3072 MiB resident and 8192 MiB of GPU-a, where 1024 of 24576 MiB were free.",
        "line 1",
        "line 2",
    ]


def test_the_detail_of_a_workers_own_fault_has_the_memory() -> None:
    """Before its traceback."""
    history = open_history(make_card("GPU-a"))
    history.start(make_task(8))
    report_free(history, "GPU-a", 0, held_bytes=8 * GIB)
    history.backend.say("GPU-a", make_failed(history.run("GPU-a"), "out_of_memory", fault="worker", detail="Traceback"))
    end = list_ends(history.wait(0.0))[0]
    assert isinstance(end, Failed)
    assert end.detail == "The worker held 8192 MiB of GPU-a, where 0 of 24576 MiB were free.\nTraceback"


def test_a_worker_may_name_its_card_without_its_number() -> None:
    """The second worker of a card can't know that it is the second."""
    history = open_history(make_card("GPU-a"), make_card("GPU-a/2"))
    history.backend.opening = lambda _, pid: (0.0, Ready("GPU-a", pid))
    history.backend.kill("GPU-a/2")
    history.wait(1.0)
    assert history.device("GPU-a/2").state == "idle"


def test_progress_without_memory_changes_nothing() -> None:
    """A handler needn't report what it holds."""
    history = open_history(make_card("GPU-a"))
    history.start(make_task(8))
    history.backend.say("GPU-a", make_progress(history.run("GPU-a")))
    assert [type(event.message) for event in history.wait(0.0) if isinstance(event, Event)] == [Progress]
    report_free(history, "GPU-a", 20)
    assert history.device("GPU-a").held_bytes == 0
