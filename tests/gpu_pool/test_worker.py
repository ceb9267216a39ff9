"""Real workers under a real pool: what each kind of fault costs, and that nothing is left."""

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
from tests.gpu_pool.pools import (
    Announcement,
    MakePool,
    filter_messages,
    get_device,
    poll_until,
    start_span,
    wait_for_end,
    wait_for_message,
    wait_for_state,
    wait_until_idle,
)


def pid_of(worker: Device) -> int:
    assert worker.worker_pid is not None
    return worker.worker_pid


def test_a_span_is_run_and_answered(make_pool: MakePool) -> None:
    """The handler's result comes with the time it took and the memory the worker holds."""
    pool = make_pool()
    start_span(pool, "count")
    done = wait_for_message(pool, Done)
    assert done.result == {"sum": 45}
    assert 0 <= done.seconds < 5
    assert done.rss_bytes > 1 << 20


def test_spans_of_a_task_are_shared_out_by_split(make_pool: MakePool) -> None:
    """Every span is done once, on two devices."""
    pool = make_pool(2)
    wait_until_idle(pool)
    todo, done = set(grid(240)), set()
    while todo:
        plan = pool.plan(Task("t", "cpu", tuple(sorted(todo)), strategy="split", payload={"do": "count"}), 0)
        if plan:
            pool.start(plan)
        for message in filter_messages(pool.poll(5.0), Done):
            todo.remove(Span(message.start, message.stop))
            done.add((message.start, message.result["sum"]))
    assert done == {(span.start, sum(range(span.start, span.stop))) for span in grid(240)}


def test_progress_is_limited_but_the_last_unit_is_reported(make_pool: MakePool) -> None:
    """Ten thousand calls in a moment are a few messages."""
    pool = make_pool()
    start_span(pool, "count", units=10_000)
    seen = poll_until(pool, lambda seen: filter_messages(seen, Done))
    units = [progress.units_done for progress in filter_messages(seen, Progress)]
    assert units[-1] == 10_000
    assert units == sorted(set(units))
    assert len(units) < 100


def test_warm_workers_serve_many_spans(make_pool: MakePool) -> None:
    """Twenty spans, one process."""
    pool = make_pool()
    pids = set()
    for number in range(20):
        start_span(pool, "count", task=str(number))
        pids.add(get_device(pool).worker_pid)
        wait_for_message(pool, Done)
    assert len(pids) == 1


CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
ENDINGS = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGALRM", "SIGUSR1")
LIMITS = ("SIGXCPU", "SIGVTALRM", "SIGPROF")


@pytest.mark.parametrize("name", [*CRASHES, *ENDINGS, *LIMITS])
def test_death_by_signal(make_pool: MakePool, name: str) -> None:
    """The signal is named, log and memory are kept, and the next worker becomes ready."""
    pool = make_pool()
    start_span(pool, "crash", signal=name)
    failed = wait_for_message(pool, Failed)
    assert (failed.fault, failed.code, failed.retry) == ("worker", "worker_died", True)
    assert failed.message == f"The worker on cpu:0 was killed by {name}."
    cause, memory, *log = failed.detail.splitlines()
    assert cause == failed.message
    assert re.fullmatch(r"The worker held [1-9]\d+ MiB resident\.", memory)
    assert "about to crash" in log
    start_span(pool, "count")
    assert wait_for_message(pool, Done).result == {"sum": 45}


def test_death_by_a_signal_without_a_name(make_pool: MakePool, announcement: Announcement) -> None:
    """Real-time signals are named by number."""
    pool = make_pool()
    start_span(pool, "wait for cancel", announce=announcement.path)
    os.kill(announcement.wait(), signal.SIGRTMIN + 3)
    assert wait_for_message(pool, Failed).message == f"The worker on cpu:0 was killed by signal {signal.SIGRTMIN + 3}."


def test_a_crash_in_native_code_leaves_a_traceback(make_pool: MakePool) -> None:
    """The detail has the line of Python that was running."""
    pool = make_pool()
    start_span(pool, "crash", signal="SIGSEGV")
    assert "Segmentation fault" in wait_for_message(pool, Failed).detail


def test_a_worker_that_exits_in_a_span(make_pool: MakePool) -> None:
    """The message has the code and the last line of the log."""
    pool = make_pool()
    start_span(pool, "leave", code=7)
    failed = wait_for_message(pool, Failed)
    assert failed.code == "worker_died"
    assert "exit code 7; its last line was: I have had enough." in failed.message


def test_the_log_of_a_death_is_its_own(make_pool: MakePool) -> None:
    """It has no lines of the worker before."""
    pool = make_pool()
    start_span(pool, "leave", code=7)
    wait_for_message(pool, Failed)
    start_span(pool, "crash", signal="SIGKILL")
    detail = wait_for_message(pool, Failed).detail
    assert "about to crash" in detail
    assert "I have had enough." not in detail


def test_a_worker_killed_from_outside_while_idle(make_pool: MakePool) -> None:
    """It is replaced by another process."""
    pool = make_pool()
    first = pid_of(wait_for_state(pool, "idle"))
    os.kill(first, signal.SIGKILL)
    seen = poll_until(pool, lambda _: get_device(pool).state == "idle" and get_device(pool).worker_pid != first)
    reasons = [event.device.reason for event in seen if isinstance(event, DeviceChanged)]
    assert "The worker on cpu:0 was killed by SIGKILL." in reasons


@pytest.mark.parametrize(
    "line",
    ["hello\n", "{}\n", '{"kind":"ready","device":"cpu:0","pid":1}\n', '{"kind":"stop"}\n', "\0\n", "endless " * 1000],
)
def test_garbage_on_the_channel(make_pool: MakePool, line: str) -> None:
    """The worker is killed, and its span isn't the job's fault."""
    pool = make_pool()
    start_span(pool, "babble", bytes=line, times=200)
    failed = wait_for_message(pool, Failed)
    assert (failed.fault, failed.code) == ("worker", "worker_nonsense")
    wait_for_state(pool, "idle")


def test_a_worker_that_closes_its_channel(make_pool: MakePool) -> None:
    """It can report nothing more, so it is killed at once."""
    pool = make_pool()
    start_span(pool, "shut channel")
    failed = wait_for_message(pool, Failed)
    assert (failed.fault, failed.code) == ("worker", "worker_died")
    wait_for_state(pool, "idle")


@pytest.mark.parametrize("do", ["freeze", "spin", "hog"])
def test_a_silent_worker_is_killed(make_pool: MakePool, do: str) -> None:
    """Whether it waits for ever, computes for ever, or blocks its other thread."""
    pool = make_pool(stall_s=0.3)
    start_span(pool, do)
    failed = wait_for_message(pool, Failed)
    assert (failed.fault, failed.code) == ("worker", "worker_stalled")
    assert "sent nothing for 0.3 s" in failed.message
    assert failed.detail.startswith(f"{failed.message}\nThe worker held ")
    wait_for_state(pool, "idle")


def test_a_stopped_worker_is_killed(make_pool: MakePool, announcement: Announcement) -> None:
    """It reports nothing, and SIGKILL ends a stopped process."""
    pool = make_pool(stall_s=0.5)
    start_span(pool, "wait for cancel", announce=announcement.path)
    os.kill(announcement.wait(), signal.SIGSTOP)
    assert wait_for_message(pool, Failed).code == "worker_stalled"
    wait_for_state(pool, "idle")


CUDNN = "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"
CUBLAS = "CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"
WORKSPACE = "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"


@pytest.mark.parametrize(
    ("do", "payload", "expected"),
    [
        ("raise trouble", {}, ("job", "no_face", "There is no face in face.jpg.", "Use a portrait.", False)),
        ("raise bug", {}, ("job", "internal", "ZeroDivisionError: frames / 0", "", True)),
        ("raise", {"error": "memory"}, ("worker", "out_of_memory", "MemoryError: ", "", True)),
        ("raise", {"error": "torch"}, ("worker", "out_of_memory", "OutOfMemoryError: card", "", True)),
        ("raise", {"error": "cuda"}, ("worker", "device_error", "RuntimeError: CUDA error: lost", "", True)),
        ("raise", {"error": "cudnn"}, ("worker", "device_error", f"RuntimeError: {CUDNN}", "", True)),
        ("raise", {"error": "cublas"}, ("worker", "device_error", f"RuntimeError: {CUBLAS}", "", True)),
        ("raise", {"error": "workspace"}, ("worker", "out_of_memory", f"RuntimeError: {WORKSPACE}", "", True)),
    ],
)
def test_exceptions_become_data(
    make_pool: MakePool, do: str, payload: dict[str, Any], expected: tuple[str, str, str, str, bool]
) -> None:
    """An engine's errors keep code, message, hint and retry; others have type and text."""
    pool = make_pool()
    start_span(pool, do, **payload)
    failed = wait_for_message(pool, Failed)
    assert (failed.fault, failed.code, failed.message, failed.hint, failed.retry) == expected
    assert "Traceback" in failed.detail
    assert "handlers.py" in failed.detail


@pytest.mark.parametrize("what", ["set", "nan", "long"])
def test_an_answer_that_cant_be_sent(make_pool: MakePool, what: str) -> None:
    """The span fails with a reason, and the worker stays."""
    pool = make_pool()
    start_span(pool, "answer badly", what=what)
    before = get_device(pool).worker_pid
    failed = wait_for_message(pool, Failed)
    assert (failed.fault, failed.code) == ("job", "internal")
    assert "can't be sent" in failed.message
    assert wait_for_state(pool, "idle").worker_pid == before


@pytest.mark.parametrize("do", ["wait for cancel", "swallow exceptions"])
def test_cancel_keeps_the_worker_warm(make_pool: MakePool, announcement: Announcement, do: str) -> None:
    """The span ends at its next progress, even in a handler with a broad except."""
    pool = make_pool()
    start_span(pool, do, announce=announcement.path)
    pid = announcement.wait()
    pool.cancel("task")
    failed = wait_for_message(pool, Failed)
    assert (failed.fault, failed.code) == ("cancelled", "cancelled")
    start_span(pool, "count", task="next")
    wait_for_message(pool, Done)
    assert get_device(pool).worker_pid == pid


@pytest.mark.parametrize("do", ["swallow cancel", "spin", "hog"])
def test_cancel_of_a_worker_that_ignores_it(make_pool: MakePool, do: str) -> None:
    """It is killed after cancel_s, and the span still ends as cancelled."""
    pool = make_pool(cancel_s=0.2, backoff=Backoff(sick_after=1))
    start_span(pool, do)
    pool.cancel("task")
    assert wait_for_message(pool, Failed).fault == "cancelled"
    assert wait_for_state(pool, "idle")


def test_cancel_right_after_start(make_pool: MakePool) -> None:
    """Before the worker has begun; fifty times, because it is a race."""
    pool = make_pool()
    for number in range(50):
        start_span(pool, "wait for cancel", task=str(number))
        pool.cancel(str(number))
        assert wait_for_message(pool, Failed).task == str(number)
    assert wait_for_state(pool, "idle")


def test_a_race_leaves_both_workers_warm(make_pool: MakePool) -> None:
    """The loser is idle again in the same process."""
    pool = make_pool(2)
    wait_until_idle(pool)
    before = [worker.worker_pid for worker in pool.devices()]
    plan = pool.plan(Task("t", "cpu", (Span(0, 10),), strategy="race", payload={"do": "count"}), 0)
    assert plan is not None
    assert len(plan.assignments) == 2
    pool.start(plan)
    seen = poll_until(pool, lambda seen: filter_messages(seen, Done))
    wait_until_idle(pool)
    assert len(filter_messages(seen, Done)) == 1
    assert [worker.worker_pid for worker in pool.devices()] == before


def test_a_factory_that_fails(make_pool: MakePool) -> None:
    """The device becomes sick, and the reason is the last line of the traceback."""
    pool = make_pool(factory="open_never", backoff=Backoff(first_s=0.01, sick_after=2))
    assert "ModuleNotFoundError: no module named 'warp_drive'" in wait_for_state(pool, "sick").reason


def test_a_sick_device_is_tried_again(make_pool: MakePool, tmp_path: Path) -> None:
    """When the cause is gone, it becomes idle by itself."""
    ok = tmp_path / "ok"
    backoff = Backoff(first_s=0.01, sick_after=2, sick_s=0.1)
    pool = make_pool(factory="open_once", options={"ok": str(ok)}, backoff=backoff)
    wait_for_state(pool, "sick")
    ok.touch()
    wait_for_state(pool, "idle")
    start_span(pool, "count")
    assert wait_for_message(pool, Done).result == {"sum": 45}


def test_a_factory_that_takes_too_long(make_pool: MakePool) -> None:
    """It is killed after start_s."""
    pool = make_pool(factory="open_slowly", start_s=0.3, backoff=Backoff(sick_after=1))
    assert "wasn't ready within 0.3 s" in wait_for_state(pool, "sick").reason


def test_a_worker_on_another_device_than_its_own(make_pool: MakePool) -> None:
    """A handler on the wrong card gets no span."""
    options = {"stats": {"device": "GPU-other"}}
    pool = make_pool(options=options, backoff=Backoff(sick_after=1))
    assert wait_for_state(pool, "sick").reason == "The worker for cpu:0 runs on GPU-other instead."


def test_a_preloaded_model_is_known(make_pool: MakePool) -> None:
    """The handler's model is the device's model."""
    pool = make_pool(options={"stats": {"model": "musetalk"}})
    assert wait_for_state(pool, "idle").model == "musetalk"


def test_facts_of_a_handler_are_known(make_pool: MakePool) -> None:
    """When it is ready, and after a span, which may have loaded another model."""
    stats = {"model": "musetalk", "load_s": 1.5, "batch": 8}
    pool = make_pool(options={"stats": stats})
    ready = wait_for_state(pool, "idle")
    assert (ready.model, ready.load_s, ready.batch) == ("musetalk", 1.5, 8)
    start_span(pool, "update stats", stats={"batch": 4, "held_bytes": 1 << 30})
    seen = poll_until(pool, lambda seen: filter_messages(seen, Done))
    assert [progress.held_bytes for progress in filter_messages(seen, Progress)][-1] == 1 << 30
    assert get_device(pool).batch == 4
    assert get_device(pool).model == "musetalk"


def test_recycling_changes_the_process(make_pool: MakePool, tmp_path: Path) -> None:
    """After two spans here; the handler is closed before."""
    farewell = tmp_path / "farewell"
    pool = make_pool(recycle_spans=2, options={"farewell": str(farewell)})
    pids = []
    for number in range(4):
        start_span(pool, "count", task=str(number))
        pids.append(get_device(pool).worker_pid)
        wait_for_message(pool, Done)
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert farewell.read_text().splitlines()[0] == str(pids[0])


def test_drain_frees_the_device(make_pool: MakePool) -> None:
    """No process is left on it until it is resumed."""
    pool = make_pool()
    pidfd = os.pidfd_open(pid_of(wait_for_state(pool, "idle")))
    pool.drain("cpu:0", "for a game")
    assert wait_for_state(pool, "drained").reason == "for a game"
    assert wait_for_end(pidfd, 0.0)
    os.close(pidfd)
    pool.resume("cpu:0")
    wait_for_state(pool, "idle")


@pytest.mark.parametrize("do", ["start program", "crash above program"])
def test_programs_that_a_worker_started_end_with_it(make_pool: MakePool, announcement: Announcement, do: str) -> None:
    """Whether the worker is killed or crashes, its whole process group ends."""
    pool = make_pool(stall_s=0.5)
    start_span(pool, do, announce=announcement.path, signal="SIGSEGV")
    pidfd = os.pidfd_open(announcement.wait())
    assert wait_for_message(pool, Failed).fault == "worker"
    assert wait_for_end(pidfd, 2.0)
    os.close(pidfd)


def test_programs_dont_inherit_the_channel(make_pool: MakePool) -> None:
    """One that outlives its worker would hide the end of the channel from the daemon."""
    pool = make_pool()
    start_span(pool, "list descriptors")
    result = wait_for_message(pool, Done).result
    assert result["channel"] not in result["inherited"]


def test_wake_ends_a_long_poll(make_pool: MakePool) -> None:
    """From another thread, while poll sleeps."""
    pool = make_pool()
    wait_for_state(pool, "idle")
    began = time.monotonic()
    threading.Timer(0.1, pool.wake).start()
    assert pool.poll(60.0) == []
    assert time.monotonic() - began < 30.0


def test_a_signal_ends_a_long_poll(make_pool: MakePool) -> None:
    """Through signal.set_wakeup_fd."""
    pool = make_pool()
    wait_for_state(pool, "idle")
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
    wait_until_idle(pool)
    pidfds = [os.pidfd_open(pid_of(worker)) for worker in pool.devices()]
    start_span(pool, "hog", task="deaf", announce=announcement.path)
    announcement.wait()
    pool.close(grace_s=0.3)
    assert all(wait_for_end(pidfd, 0.0) for pidfd in pidfds)
    pool.close()
    for pidfd in pidfds:
        os.close(pidfd)


def test_close_while_workers_start(make_pool: MakePool, announcement: Announcement) -> None:
    """It doesn't wait for workers that aren't ready."""
    pool = make_pool(factory="open_slowly", options={"announce": announcement.path})
    pidfd = os.pidfd_open(announcement.wait())
    began = time.monotonic()
    pool.close(grace_s=60.0)
    assert wait_for_end(pidfd, 0.0)
    assert time.monotonic() - began < 30.0
    os.close(pidfd)


def test_no_file_descriptors_leak(make_pool: MakePool) -> None:
    """After ten deaths as many are open as before."""
    pool = make_pool(backoff=Backoff(first_s=0.001, sick_after=1000, sick_s=0.001))
    wait_for_state(pool, "idle")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        start_span(pool, "crash", signal="SIGKILL")
        wait_for_message(pool, Failed)
    wait_for_state(pool, "idle")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_daemon_that_runs_out_of_file_descriptors(make_pool: MakePool) -> None:
    """A worker that can't be started counts as one that died: the pool pauses and tries again."""
    pool = make_pool(backoff=Backoff(first_s=0.01, sick_after=2, sick_s=0.2))
    worker = pid_of(wait_for_state(pool, "idle"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) - 3, hard))
    try:
        os.kill(worker, signal.SIGKILL)
        reason = wait_for_state(pool, "sick").reason
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "no worker could be started" in reason
    wait_for_state(pool, "idle")
