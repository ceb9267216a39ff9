"""What a worker is started with, and where its output goes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gpu_pool import process
from gpu_pool.local import LocalBackend, build_environment, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.process import WorkerProcess, count_oom_kills, log_path
from gpu_pool.types import Device, Done, Exited, Failed, Open, Ready, RunSpan, Span, Task
from gpu_pool.wire import WireError, encode
from tests.gpu_pool.conftest import (
    DEADLINE_S,
    HANDLERS,
    MakeBackend,
    MakePool,
    await_all_idle,
    await_state,
    begin,
    outcome,
    watch,
)

CARD = Device("GPU-5e1f-aa", "cuda")


def test_cpu_devices_are_numbered() -> None:
    """From cpu:0 on."""
    assert [(device.id, device.kind) for device in cpu_devices(3)] == [
        ("cpu:0", "cpu"),
        ("cpu:1", "cpu"),
        ("cpu:2", "cpu"),
    ]


@pytest.mark.parametrize(
    ("peers", "cores", "threads"), [(1, 8, "8"), (4, 8, "2"), (3, 8, "2"), (4, 2, "1"), (2, 1, "1")]
)
def test_workers_share_the_cores(peers: int, cores: int, threads: str) -> None:
    """Together they use no more threads than there are cores, and each at least one."""
    started_with = build_environment(cpu_devices(1)[0], peers, cores, {})
    assert {name: started_with[name] for name in started_with if name.endswith(("THREADS", "THREADS_NUM"))} == {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENCV_FOR_THREADS_NUM": threads,
    }


def test_threads_an_operator_chose_stand() -> None:
    """What the environment says already isn't changed."""
    assert build_environment(CARD, 4, 8, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_a_worker_sees_its_own_card_and_no_other() -> None:
    """Whatever the daemon's own environment says; a worker without a card sees none."""
    inherited = {"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST", "HOME": "/home/x"}
    with_card = build_environment(CARD, 1, 1, inherited)
    assert with_card["CUDA_VISIBLE_DEVICES"] == "GPU-5e1f-aa"
    assert with_card["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert with_card["HOME"] == "/home/x"
    assert build_environment(cpu_devices(1)[0], 1, 1, inherited)["CUDA_VISIBLE_DEVICES"] == ""


def test_cards_and_processors_side_by_side(tmp_path: Path) -> None:
    """Each worker is told its device, the options and the environment of its own."""
    backend = LocalBackend(
        [CARD, *cpu_devices(1)],
        handler=f"{HANDLERS}:Obliging",
        handler_options={"cache": "/c"},
        log_dir=tmp_path / "new" / "logs",
        env={"EXTRA": "yes"},
    )
    with Pool(backend, stall_s=30.0) as pool:
        await_all_idle(pool)
        for device, kind, visible in ((CARD.id, "cuda", CARD.id), ("cpu:0", "cpu", "")):
            job = Task(kind, "cuda" if kind == "cuda" else "cpu", (Span(0, 1),), payload={"do": "tell"})
            plan = pool.plan(job, 0)
            assert plan is not None
            pool.start(plan)
            told = outcome(pool, Done).result
            assert told["device"] == device
            assert told["options"] == {"cache": "/c"}
            assert told["env"]["CUDA_VISIBLE_DEVICES"] == visible
            assert told["env"]["EXTRA"] == "yes"
            await_all_idle(pool)


def test_nothing_is_imported_from_the_working_directory(
    make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file called json.py on a share doesn't become our code."""
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    pool = make_pool()
    begin(pool, "tell")
    path = outcome(pool, Done).result["path"]
    assert "" not in path
    assert str(tmp_path) not in path


def test_output_goes_to_the_workers_log(make_pool: MakePool, tmp_path: Path) -> None:
    """Print and child programs alike, and none of it is taken for a message."""
    pool = make_pool()
    begin(pool, "print", lines=1000)
    assert outcome(pool, Done).result == {}
    log = (tmp_path / "logs" / "worker-cpu-0.log").read_text()
    assert "line 999" in log
    assert "from a program" in log
    assert "a worker for cpu:0" in log


def test_logs_are_kept_apart_and_rotated(make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large log is set aside when the next worker starts, and only one old log is kept."""
    monkeypatch.setattr(process, "LOG_BYTES", 1000)
    logs = tmp_path / "logs"
    pool = make_pool(recycle_spans=1)
    for task in ("first", "second", "third"):
        begin(pool, "print", lines=100, task=task)
        outcome(pool, Done)
    await_state(pool, "idle")
    assert sorted(path.name for path in logs.iterdir()) == ["worker-cpu-0.log", "worker-cpu-0.log.1"]
    assert (logs / "worker-cpu-0.log.1").stat().st_size < 10_000


def test_the_log_of_a_living_worker_is_rotated(
    make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between spans: the old lines are set aside, the last ones stay, and a death is still told with them."""
    monkeypatch.setattr(process, "LOG_BYTES", 100_000)
    monkeypatch.setattr(process, "TAIL_BYTES", 2000)
    pool = make_pool()
    for number in range(5):
        begin(pool, "print", lines=1500, task=str(number))
        outcome(pool, Done)
    log, aside = (tmp_path / "logs" / name for name in ("worker-cpu-0.log", "worker-cpu-0.log.1"))
    assert log.stat().st_size < 100_000
    assert aside.stat().st_size < 200_000
    assert "a worker for cpu:0" not in log.read_text()
    assert sum(1 for _ in (tmp_path / "logs").iterdir()) == 2
    begin(pool, "crash", signal="SIGKILL", task="last")
    detail = outcome(pool, Failed).detail
    assert "about to crash" in detail
    assert "line 1499" in detail
    assert "\0" not in log.read_text()


def test_the_log_of_a_worker_that_never_stops_talking_is_rotated(
    make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a span only when the log is much too large: some lines are lost then."""
    monkeypatch.setattr(process, "LOG_BYTES", 10_000)
    pool = make_pool()
    begin(pool, "chatter")
    watch(pool, lambda _: (tmp_path / "logs" / "worker-cpu-0.log.1").exists())
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
    """Whatever a device is called, its log lies in the folder."""
    assert log_path(tmp_path, device) == tmp_path / name


def test_options_that_cant_be_sent_are_refused_at_once(tmp_path: Path) -> None:
    """Before any worker is started."""
    with pytest.raises(WireError):
        LocalBackend(cpu_devices(1), handler="x:y", handler_options={"path": tmp_path}, log_dir=tmp_path)


def test_last_words_are_heard(tmp_path: Path) -> None:
    """What a worker said just before its end comes before its end, and half a message is no message."""
    worker = WorkerProcess("cpu:0", os.environ, tmp_path / "log")
    said = Done("task", 0, 1, 2.0)
    half = encode(said).decode() + '{"kind":"do'
    worker.send(encode(Open("cpu:0", f"{HANDLERS}:Obliging", {})))
    worker.send(encode(RunSpan("task", 0, 1, {"do": "say and leave", "bytes": half})))
    assert worker.wait_for_end(DEADLINE_S)
    heard = worker.reap()
    assert [type(message) for message in heard] == [Ready, Done, Exited]
    assert isinstance(heard[-1], Exited)
    assert heard[-1].peak_bytes > 1 << 20


def test_workers_are_started_by_the_main_thread_only(make_backend: MakeBackend) -> None:
    """They die with the thread that started them, so another thread is refused."""
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


def test_the_oom_killer_is_counted(tmp_path: Path) -> None:
    """From the kernel's own figures; where there are none, it never struck."""
    figures = tmp_path / "vmstat"
    figures.write_text("pgfault 17\noom_kill 3\nnr_free 5\n")
    assert count_oom_kills(figures) == 3
    assert count_oom_kills(tmp_path / "missing") == 0
    assert count_oom_kills() >= 0


def test_workers_are_the_oom_killers_first_choice(make_pool: MakePool) -> None:
    """Rather they than the daemon."""
    worker = await_state(make_pool(), "idle")
    score = int(Path(f"/proc/{worker.worker_pid}/oom_score_adj").read_text())
    assert score == 500
