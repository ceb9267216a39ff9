"""What workers of this machine are started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_pool.local import LocalBackend, build_environment, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import Device, Done, Span, Task
from gpu_pool.wire import WireError
from tests.gpu_pool.pools import (
    HANDLERS,
    MakePool,
    wait_for_message,
    wait_for_state,
    wait_until_idle,
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


def test_threads_that_an_operator_chose_stay() -> None:
    """A number in the environment isn't changed."""
    assert build_environment(CARD, 4, 8, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_memory_of_a_card_is_in_segments_that_grow() -> None:
    """PyTorch is told before it is imported, unless the operator told it something; a processor needs nothing."""
    assert build_environment(CARD, 1, 1, {})["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "PYTORCH_ALLOC_CONF" not in build_environment(cpu_devices(1)[0], 1, 1, {})
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        told = {name: "max_split_size_mb:512"}
        started_with = build_environment(CARD, 1, 1, told)
        assert {key: started_with[key] for key in started_with if "ALLOC" in key} == told


def test_a_worker_sees_its_own_card_and_no_other() -> None:
    """Whatever the daemon's own environment has; a worker without a card sees none."""
    inherited = {"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST", "HOME": "/home/x"}
    with_card = build_environment(CARD, 1, 1, inherited)
    assert with_card["CUDA_VISIBLE_DEVICES"] == "GPU-5e1f-aa"
    assert with_card["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert with_card["HOME"] == "/home/x"
    assert build_environment(cpu_devices(1)[0], 1, 1, inherited)["CUDA_VISIBLE_DEVICES"] == ""


def test_cards_and_processors_side_by_side(tmp_path: Path) -> None:
    """Each worker gets its own device, options and environment."""
    backend = LocalBackend(
        [CARD, *cpu_devices(1)],
        handler=f"{HANDLERS}:Obliging",
        handler_options={"cache": "/c"},
        log_dir=tmp_path / "new" / "logs",
        env={"EXTRA": "yes"},
    )
    with Pool(backend, stall_s=30.0) as pool:
        wait_until_idle(pool)
        for device, kind, visible in ((CARD.id, "cuda", CARD.id), ("cpu:0", "cpu", "")):
            job = Task(kind, "cuda" if kind == "cuda" else "cpu", (Span(0, 1),), payload={"do": "describe"})
            plan = pool.plan(job, 0)
            assert plan is not None
            pool.start(plan)
            result = wait_for_message(pool, Done).result
            assert result["device"] == device
            assert result["options"] == {"cache": "/c"}
            assert result["env"]["CUDA_VISIBLE_DEVICES"] == visible
            assert result["env"]["EXTRA"] == "yes"
            wait_until_idle(pool)


def test_options_that_cant_be_sent_are_refused_at_once(tmp_path: Path) -> None:
    """Before any worker is started."""
    with pytest.raises(WireError):
        LocalBackend(cpu_devices(1), handler="x:y", handler_options={"path": tmp_path}, log_dir=tmp_path)


def test_workers_are_the_oom_killers_first_choice(make_pool: MakePool) -> None:
    """Before the daemon."""
    worker = wait_for_state(make_pool(), "idle")
    score = int(Path(f"/proc/{worker.worker_pid}/oom_score_adj").read_text())
    assert score == 500
