"""A worker process and its log."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gpu_pool import process
from gpu_pool.process import Program, WorkerProcess, count_oom_kills, log_path
from gpu_pool.types import Done, Exited, Failed, Open, Ready, RunSpan
from gpu_pool.wire import encode
from tests.gpu_pool.pools import (
    DEADLINE_S,
    HANDLERS,
    MakeBackend,
    MakePool,
    poll_until,
    start_span,
    wait_for_message,
    wait_for_state,
)
from tests.share import until


def test_nothing_is_imported_from_the_working_directory(
    make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file called json.py on a share isn't imported."""
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    pool = make_pool()
    start_span(pool, "describe")
    path = wait_for_message(pool, Done).result["path"]
    assert "" not in path
    assert str(tmp_path) not in path


def test_output_goes_to_the_workers_log(make_pool: MakePool, tmp_path: Path) -> None:
    """From print and from child programs; none of it is parsed as a message."""
    pool = make_pool()
    start_span(pool, "print", lines=1000)
    assert wait_for_message(pool, Done).result == {}
    log = (tmp_path / "logs" / "worker-cpu-0.log").read_text()
    assert "line 999" in log
    assert "from a program" in log
    assert "a worker for cpu:0" in log


def test_logs_are_kept_apart_and_rotated(make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large log is moved aside when the next worker starts, and only one old log is kept."""
    monkeypatch.setattr(process, "LOG_BYTES", 1000)
    logs = tmp_path / "logs"
    pool = make_pool(recycle_spans=1)
    for task in ("first", "second", "third"):
        start_span(pool, "print", lines=100, task=task)
        wait_for_message(pool, Done)
    wait_for_state(pool, "idle")
    assert sorted(path.name for path in logs.iterdir()) == ["worker-cpu-0.log", "worker-cpu-0.log.1"]
    assert (logs / "worker-cpu-0.log.1").stat().st_size < 10_000


def test_the_log_of_a_living_worker_is_rotated(
    make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between spans; the last lines stay, for the detail of a death."""
    monkeypatch.setattr(process, "LOG_BYTES", 100_000)
    monkeypatch.setattr(process, "TAIL_BYTES", 2000)
    pool = make_pool()
    for number in range(5):
        start_span(pool, "print", lines=1500, task=str(number))
        wait_for_message(pool, Done)
    log, aside = (tmp_path / "logs" / name for name in ("worker-cpu-0.log", "worker-cpu-0.log.1"))
    assert log.stat().st_size < 100_000
    assert aside.stat().st_size < 200_000
    assert "a worker for cpu:0" not in log.read_text()
    assert sum(1 for _ in (tmp_path / "logs").iterdir()) == 2
    start_span(pool, "crash", signal="SIGKILL", task="last")
    detail = wait_for_message(pool, Failed).detail
    assert "about to crash" in detail
    assert "line 1499" in detail
    assert "\0" not in log.read_text()


def test_the_log_of_a_noisy_span_is_rotated(
    make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a span only when the log is much too large: some lines are lost then."""
    monkeypatch.setattr(process, "LOG_BYTES", 10_000)
    pool = make_pool()
    start_span(pool, "chatter")
    poll_until(pool, lambda _: (tmp_path / "logs" / "worker-cpu-0.log.1").exists())
    assert (tmp_path / "logs" / "worker-cpu-0.log.1").stat().st_size >= 16 * 10_000


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("GPU-1a/2", "worker-GPU-1a-2.log"),
        ("cpu:0", "worker-cpu-0.log"),
        ("GPU-1a-2b", "worker-GPU-1a-2b.log"),
        ("../x/y z", "worker-..-x-y-z.log"),
    ],
)
def test_log_names_are_plain(tmp_path: Path, device: str, name: str) -> None:
    """Whatever a device is called, its log is in the folder."""
    assert log_path(tmp_path, device) == tmp_path / name


def test_the_last_messages_are_read(tmp_path: Path) -> None:
    """They come before Exited, and half a message is none."""
    worker = WorkerProcess("cpu:0", os.environ, tmp_path / "log")
    done = Done("task", 0, 1, 2.0)
    half = encode(done).decode() + '{"kind":"do'
    worker.send(encode(Open("cpu:0", f"{HANDLERS}:Obliging", {})))
    worker.send(encode(RunSpan("task", 0, 1, {"do": "say and leave", "bytes": half})))
    assert worker.wait_for_end(DEADLINE_S)
    messages = worker.reap()
    assert [type(message) for message in messages] == [Ready, Done, Exited]
    assert isinstance(messages[-1], Exited)
    assert messages[-1].peak_bytes > 1 << 20


def test_workers_are_started_by_the_main_thread_only(make_backend: MakeBackend) -> None:
    """They end with the thread that started them, so another thread is refused."""
    backend, raised = make_backend(), []

    def spawn() -> None:
        try:
            backend.spawn("cpu:0")
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=spawn)
    thread.start()
    thread.join()
    assert len(raised) == 1
    assert "main thread" in raised[0]


def test_oom_kills_are_counted(tmp_path: Path) -> None:
    """From the kernel's own figures; 0 where there are none."""
    figures = tmp_path / "vmstat"
    figures.write_text("pgfault 17\noom_kill 3\nnr_free 5\n")
    assert count_oom_kills(figures) == 3
    assert count_oom_kills(tmp_path / "missing") == 0
    assert count_oom_kills() >= 0


def test_a_program_reads_what_it_is_sent_and_ends_with_a_code(tmp_path: Path) -> None:
    """Its output is in its log, under a heading."""
    program = Program("tests.gpu_pool.program", ["echo"], b"hello", tmp_path / "logs" / "program.log")
    until(lambda: program.exit_code is not None, DEADLINE_S, lambda: "it doesn't end")
    assert program.exit_code == 3
    text = (tmp_path / "logs" / "program.log").read_text()
    assert text.endswith("hello\n")
    assert f"parent {os.getpid()}" in text
    program.kill()


def test_a_program_is_killed(tmp_path: Path) -> None:
    """At once, whatever it does."""
    program = Program("tests.gpu_pool.program", ["wait"], b"", tmp_path / "program.log")
    assert program.exit_code is None
    program.kill()
    until(lambda: program.exit_code is not None, DEADLINE_S, lambda: "it lives")
    assert program.exit_code == -9
