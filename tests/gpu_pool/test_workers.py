"""Real workers under a real pool: what each kind of trouble costs, and that nothing is left over."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gpu_pool.backoff import Backoff
from gpu_pool.types import Device, DeviceChanged, Done, Failed, Progress, Span, Task, grid
from tests.gpu_pool.conftest import (
    Announcement,
    MakePool,
    await_all_idle,
    await_state,
    begin,
    device,
    gone,
    messages,
    outcome,
    watch,
)


def pid_of(worker: Device) -> int:
    assert worker.worker_pid is not None
    return worker.worker_pid


def test_a_span_is_run_and_answered(make_pool: MakePool) -> None:
    """The handler's result comes back with the time it took and the memory the worker holds."""
    pool = make_pool()
    begin(pool, "count")
    done = outcome(pool, Done)
    assert done.result == {"sum": 45}
    assert 0 <= done.seconds < 5
    assert done.rss_bytes > 1 << 20


def test_spans_of_a_task_are_shared_out_by_split(make_pool: MakePool) -> None:
    """Every span is done once, on two devices."""
    pool = make_pool(2)
    await_all_idle(pool)
    todo, done = set(grid(240)), set()
    while todo:
        plan = pool.plan(Task("t", "cpu", tuple(sorted(todo)), strategy="split", payload={"do": "count"}), 0)
        if plan:
            pool.start(plan)
        for message in messages(pool.poll(5.0), Done):
            todo.remove(Span(message.start, message.stop))
            done.add((message.start, message.result["sum"]))
    assert done == {(span.start, sum(range(span.start, span.stop))) for span in grid(240)}


def test_progress_is_thinned_out_but_the_last_unit_is_told(make_pool: MakePool) -> None:
    """Ten thousand ticks in a moment are a handful of messages."""
    pool = make_pool()
    begin(pool, "count", units=10_000)
    seen = watch(pool, lambda seen: messages(seen, Done))
    units = [progress.units_done for progress in messages(seen, Progress)]
    assert units[-1] == 10_000
    assert units == sorted(set(units))
    assert len(units) < 100


def test_warm_workers_serve_many_spans(make_pool: MakePool) -> None:
    """Twenty spans, one process."""
    pool = make_pool()
    pids = set()
    for number in range(20):
        begin(pool, "count", task=str(number))
        pids.add(device(pool).worker_pid)
        outcome(pool, Done)
    assert len(pids) == 1


CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
ENDINGS = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGALRM", "SIGUSR1")
LIMITS = ("SIGXCPU", "SIGVTALRM", "SIGPROF")


@pytest.mark.parametrize("name", [*CRASHES, *ENDINGS, *LIMITS])
def test_death_by_signal(make_pool: MakePool, name: str) -> None:
    """Native crashes, what people and supervisors send, limits: the signal is named, the log and the memory are kept,
    and the next worker gets ready."""
    pool = make_pool()
    begin(pool, "crash", signal=name)
    failed = outcome(pool, Failed)
    assert (failed.fault, failed.code, failed.retry) == ("worker", "worker_died", True)
    assert failed.message == f"The worker on cpu:0 was killed by {name}."
    cause, memory, *log = failed.detail.splitlines()
    assert cause == failed.message
    assert re.fullmatch(r"The worker held [1-9]\d+ MiB resident\.", memory)
    assert "about to crash" in log
    begin(pool, "count")
    assert outcome(pool, Done).result == {"sum": 45}


def test_death_by_a_signal_without_a_name(make_pool: MakePool, announcement: Announcement) -> None:
    """Real-time signals are told by number."""
    pool = make_pool()
    begin(pool, "wait for cancel", announce=announcement.path)
    os.kill(announcement.wait(), signal.SIGRTMIN + 3)
    assert outcome(pool, Failed).message == f"The worker on cpu:0 was killed by signal {signal.SIGRTMIN + 3}."


def test_a_crash_in_native_code_leaves_a_traceback(make_pool: MakePool) -> None:
    """The detail says which line of Python was running."""
    pool = make_pool()
    begin(pool, "crash", signal="SIGSEGV")
    assert "Segmentation fault" in outcome(pool, Failed).detail


def test_a_worker_that_leaves(make_pool: MakePool) -> None:
    """An exit in the middle of a span is a death too, with the code and the last line it said."""
    pool = make_pool()
    begin(pool, "leave", code=7)
    failed = outcome(pool, Failed)
    assert failed.code == "worker_died"
    assert "exit code 7 after saying: I have had enough." in failed.message


def test_the_log_of_a_death_is_its_own(make_pool: MakePool) -> None:
    """What the worker before it said isn't told again."""
    pool = make_pool()
    begin(pool, "leave", code=7)
    outcome(pool, Failed)
    begin(pool, "crash", signal="SIGKILL")
    detail = outcome(pool, Failed).detail
    assert "about to crash" in detail
    assert "I have had enough." not in detail


def test_a_worker_killed_from_outside_while_idle(make_pool: MakePool) -> None:
    """It is replaced by another process without anybody asking."""
    pool = make_pool()
    first = pid_of(await_state(pool, "idle"))
    os.kill(first, signal.SIGKILL)
    seen = watch(pool, lambda _: device(pool).state == "idle" and device(pool).worker_pid != first)
    reasons = [event.device.reason for event in seen if isinstance(event, DeviceChanged)]
    assert "The worker on cpu:0 was killed by SIGKILL." in reasons


@pytest.mark.parametrize(
    "said",
    ["hello\n", "{}\n", '{"kind":"ready","device":"cpu:0","pid":1}\n', '{"kind":"stop"}\n', "\0\n", "endless " * 1000],
)
def test_nonsense_on_the_channel(make_pool: MakePool, said: str) -> None:
    """A worker that speaks no sense is killed, and its span isn't the job's fault."""
    pool = make_pool()
    begin(pool, "babble", bytes=said, times=200)
    failed = outcome(pool, Failed)
    assert (failed.fault, failed.code) == ("worker", "worker_nonsense")
    await_state(pool, "idle")


def test_a_worker_that_closes_its_channel(make_pool: MakePool) -> None:
    """It can be of no more use, so it is ended at once."""
    pool = make_pool()
    begin(pool, "shut channel")
    failed = outcome(pool, Failed)
    assert (failed.fault, failed.code) == ("worker", "worker_died")
    await_state(pool, "idle")


@pytest.mark.parametrize("do", ["freeze", "spin", "hog"])
def test_a_silent_worker_is_killed(make_pool: MakePool, do: str) -> None:
    """Whether it waits for ever, computes for ever, or doesn't even let its other thread run."""
    pool = make_pool(stall_s=0.3)
    begin(pool, do)
    failed = outcome(pool, Failed)
    assert (failed.fault, failed.code) == ("worker", "worker_stalled")
    assert "said nothing for 0.3 s" in failed.message
    assert failed.detail.startswith(f"{failed.message}\nThe worker held ")
    await_state(pool, "idle")


def test_a_stopped_worker_is_killed(make_pool: MakePool, announcement: Announcement) -> None:
    """SIGSTOP looks like silence, and SIGKILL works on a stopped process."""
    pool = make_pool(stall_s=0.5)
    begin(pool, "wait for cancel", announce=announcement.path)
    os.kill(announcement.wait(), signal.SIGSTOP)
    assert outcome(pool, Failed).code == "worker_stalled"
    await_state(pool, "idle")


@pytest.mark.parametrize(
    ("do", "payload", "expected"),
    [
        ("raise trouble", {}, ("job", "no_face", "There is no face in face.jpg.", "Use a portrait.", False)),
        ("raise bug", {}, ("job", "internal", "ZeroDivisionError: frames / 0", "", True)),
        ("raise", {"error": "memory"}, ("worker", "out_of_memory", "MemoryError: ", "", True)),
        ("raise", {"error": "torch"}, ("worker", "out_of_memory", "OutOfMemoryError: card", "", True)),
        ("raise", {"error": "cuda"}, ("worker", "device_error", "RuntimeError: CUDA error: lost", "", True)),
    ],
)
def test_exceptions_become_data(
    make_pool: MakePool, do: str, payload: dict[str, Any], expected: tuple[str, str, str, str, bool]
) -> None:
    """An engine's own errors keep code, message, hint and retry; others are told by type and text; with a traceback."""
    pool = make_pool()
    begin(pool, do, **payload)
    failed = outcome(pool, Failed)
    assert (failed.fault, failed.code, failed.message, failed.hint, failed.retry) == expected
    assert "Traceback" in failed.detail
    assert "handlers.py" in failed.detail


@pytest.mark.parametrize("what", ["set", "nan", "long"])
def test_an_answer_that_cant_be_sent(make_pool: MakePool, what: str) -> None:
    """It costs the span, with a reason, and the worker stays."""
    pool = make_pool()
    begin(pool, "answer badly", what=what)
    before = device(pool).worker_pid
    failed = outcome(pool, Failed)
    assert (failed.fault, failed.code) == ("job", "internal")
    assert "can't be sent" in failed.message
    assert await_state(pool, "idle").worker_pid == before


@pytest.mark.parametrize("do", ["wait for cancel", "swallow exceptions"])
def test_cancel_keeps_the_worker_warm(make_pool: MakePool, announcement: Announcement, do: str) -> None:
    """The span ends as cancelled at its next tick, even in a handler with a broad except; the process goes on."""
    pool = make_pool()
    begin(pool, do, announce=announcement.path)
    pid = announcement.wait()
    pool.cancel("task")
    failed = outcome(pool, Failed)
    assert (failed.fault, failed.code) == ("cancelled", "cancelled")
    begin(pool, "count", task="next")
    outcome(pool, Done)
    assert device(pool).worker_pid == pid


@pytest.mark.parametrize("do", ["swallow cancel", "spin", "hog"])
def test_cancel_of_a_worker_that_doesnt_listen(make_pool: MakePool, do: str) -> None:
    """It is killed after cancel_s, and the span still ends as cancelled."""
    pool = make_pool(cancel_s=0.2, backoff=Backoff(sick_after=1))
    begin(pool, do)
    pool.cancel("task")
    assert outcome(pool, Failed).fault == "cancelled"
    assert await_state(pool, "idle")


def test_cancel_right_after_start(make_pool: MakePool) -> None:
    """Before the worker has even begun; fifty times, because it is a race."""
    pool = make_pool()
    for number in range(50):
        begin(pool, "wait for cancel", task=str(number))
        pool.cancel(str(number))
        assert outcome(pool, Failed).task == str(number)
    assert await_state(pool, "idle")


def test_a_race_leaves_both_workers_warm(make_pool: MakePool) -> None:
    """The loser hears of it and is idle again in the same process."""
    pool = make_pool(2)
    await_all_idle(pool)
    before = [worker.worker_pid for worker in pool.devices()]
    plan = pool.plan(Task("t", "cpu", (Span(0, 10),), strategy="race", payload={"do": "count"}), 0)
    assert plan is not None
    assert len(plan.assignments) == 2
    pool.start(plan)
    seen = watch(pool, lambda seen: messages(seen, Done))
    await_all_idle(pool)
    assert len(messages(seen, Done)) == 1
    assert [worker.worker_pid for worker in pool.devices()] == before


def test_a_factory_that_fails(make_pool: MakePool) -> None:
    """The device gets sick, and the reason is the last line of the traceback."""
    pool = make_pool(factory="open_never", backoff=Backoff(first_s=0.01, sick_after=2))
    assert "ModuleNotFoundError: no module named 'warp_drive'" in await_state(pool, "sick").reason


def test_a_sick_device_is_tried_again(make_pool: MakePool, tmp_path: Path) -> None:
    """When the cause is gone, it comes back by itself."""
    ok = tmp_path / "ok"
    backoff = Backoff(first_s=0.01, sick_after=2, sick_s=0.1)
    pool = make_pool(factory="open_once", options={"ok": str(ok)}, backoff=backoff)
    await_state(pool, "sick")
    ok.touch()
    await_state(pool, "idle")
    begin(pool, "count")
    assert outcome(pool, Done).result == {"sum": 45}


def test_a_factory_that_takes_too_long(make_pool: MakePool) -> None:
    """It is killed after start_s."""
    pool = make_pool(factory="open_slowly", start_s=0.3, backoff=Backoff(sick_after=1))
    assert "wasn't ready within 0.3 s" in await_state(pool, "sick").reason


def test_a_worker_on_another_device_than_its_own(make_pool: MakePool) -> None:
    """A handler that finds itself on the wrong card gets no work."""
    options = {"facts": {"device": "GPU-other"}}
    pool = make_pool(options=options, backoff=Backoff(sick_after=1))
    assert await_state(pool, "sick").reason == "The worker for cpu:0 found itself on GPU-other."


def test_a_preloaded_model_is_known(make_pool: MakePool) -> None:
    """What the handler says it has loaded is the device's model."""
    pool = make_pool(options={"facts": {"model": "musetalk"}})
    assert await_state(pool, "idle").model == "musetalk"


def test_what_a_worker_says_of_its_model_is_known(make_pool: MakePool) -> None:
    """When it is ready, and again after a span, when it may have loaded something else."""
    facts = {"model": "musetalk", "load_s": 1.5, "batch": 8}
    pool = make_pool(options={"facts": facts})
    ready = await_state(pool, "idle")
    assert (ready.model, ready.load_s, ready.batch) == ("musetalk", 1.5, 8)
    begin(pool, "learn", facts={"batch": 4, "held_bytes": 1 << 30})
    seen = watch(pool, lambda seen: messages(seen, Done))
    assert [progress.held_bytes for progress in messages(seen, Progress)][-1] == 1 << 30
    assert device(pool).batch == 4
    assert device(pool).model == "musetalk"


def test_recycling_changes_the_process(make_pool: MakePool, tmp_path: Path) -> None:
    """After two spans here; the handler is closed politely."""
    farewell = tmp_path / "farewell"
    pool = make_pool(recycle_spans=2, options={"farewell": str(farewell)})
    pids = []
    for number in range(4):
        begin(pool, "count", task=str(number))
        pids.append(device(pool).worker_pid)
        outcome(pool, Done)
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert farewell.read_text().splitlines()[0] == str(pids[0])


def test_drain_frees_the_device(make_pool: MakePool) -> None:
    """No process is left on it until it is resumed."""
    pool = make_pool()
    pidfd = os.pidfd_open(pid_of(await_state(pool, "idle")))
    pool.drain("cpu:0", "for a game")
    assert await_state(pool, "drained").reason == "for a game"
    assert gone(pidfd, 0.0)
    os.close(pidfd)
    pool.resume("cpu:0")
    await_state(pool, "idle")


@pytest.mark.parametrize("do", ["start program", "crash above program"])
def test_programs_a_worker_started_die_with_it(make_pool: MakePool, announcement: Announcement, do: str) -> None:
    """Whether we kill the worker or it crashes, its whole process group goes."""
    pool = make_pool(stall_s=0.5)
    begin(pool, do, announce=announcement.path, signal="SIGSEGV")
    pidfd = os.pidfd_open(announcement.wait())
    assert outcome(pool, Failed).fault == "worker"
    assert gone(pidfd, 2.0)
    os.close(pidfd)


def test_programs_dont_inherit_the_channel(make_pool: MakePool) -> None:
    """One that outlived its worker would otherwise keep the daemon from seeing the end of it."""
    pool = make_pool()
    begin(pool, "list descriptors")
    told = outcome(pool, Done).result
    assert told["channel"] not in told["inherited"]


def test_wake_ends_a_long_poll(make_pool: MakePool) -> None:
    """From another thread, while poll sleeps."""
    pool = make_pool()
    await_state(pool, "idle")
    began = time.monotonic()
    threading.Timer(0.1, pool.wake).start()
    assert pool.poll(60.0) == []
    assert time.monotonic() - began < 30.0


def test_a_signal_ends_a_long_poll(make_pool: MakePool) -> None:
    """Through signal.set_wakeup_fd."""
    pool = make_pool()
    await_state(pool, "idle")
    came: list[int] = []
    handler = signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    old = signal.set_wakeup_fd(pool.wakeup_fd)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert pool.poll(60.0) == []
    finally:
        signal.set_wakeup_fd(old)
        signal.signal(signal.SIGUSR1, handler)
    assert came == [signal.SIGUSR1]


def test_close_leaves_no_process(make_pool: MakePool, announcement: Announcement) -> None:
    """Idle, busy and deaf workers alike; closing twice is harmless."""
    pool = make_pool(3)
    await_all_idle(pool)
    pidfds = [os.pidfd_open(pid_of(worker)) for worker in pool.devices()]
    begin(pool, "hog", task="deaf", announce=announcement.path)
    announcement.wait()
    pool.close(grace_s=0.3)
    assert all(gone(pidfd, 0.0) for pidfd in pidfds)
    pool.close()
    for pidfd in pidfds:
        os.close(pidfd)


def test_close_while_workers_start(make_pool: MakePool, announcement: Announcement) -> None:
    """Nothing is waited for that has not begun."""
    pool = make_pool(factory="open_slowly", options={"announce": announcement.path})
    pidfd = os.pidfd_open(announcement.wait())
    began = time.monotonic()
    pool.close(grace_s=60.0)
    assert gone(pidfd, 0.0)
    assert time.monotonic() - began < 30.0
    os.close(pidfd)


def test_no_file_descriptors_leak(make_pool: MakePool) -> None:
    """Ten deaths later as many are open as before."""
    pool = make_pool(backoff=Backoff(first_s=0.001, sick_after=1000, sick_s=0.001))
    await_state(pool, "idle")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        begin(pool, "crash", signal="SIGKILL")
        outcome(pool, Failed)
    await_state(pool, "idle")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_daemon_that_runs_out_of_file_descriptors(make_pool: MakePool) -> None:
    """A worker that can't be started is one that died: the pool waits and tries again."""
    pool = make_pool(backoff=Backoff(first_s=0.01, sick_after=2, sick_s=0.2))
    worker = pid_of(await_state(pool, "idle"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) - 3, hard))
    try:
        os.kill(worker, signal.SIGKILL)
        reason = await_state(pool, "sick").reason
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "no worker could be started" in reason
    await_state(pool, "idle")
