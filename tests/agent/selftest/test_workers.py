"""The workers of a self-test: real processes that do what a test says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.selftest.workers import PoolWorkers
from gpu_pool.cards import CardRules, CardWatch
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import Done, Failed
from tests.gpu_pool.pools import DEADLINE_S, HANDLERS, get_device, poll_until
from tests.nvmlstub import PretendDriver
from tests.share import are_gone, until

GIB = 1 << 30
CARD = "GPU-aaaa1111"
MakeWorkers = Callable[..., tuple[PoolWorkers, Pool]]


@pytest.fixture
def make_workers(tmp_path: Path) -> Iterator[MakeWorkers]:
    """Make two workers, on the processor or on a pretended card, whose handler does as it is told."""
    pools: list[Pool] = []

    def make(driver: PretendDriver | None = None, budget_s: float = 600.0) -> tuple[PoolWorkers, Pool]:
        watch = CardWatch(tmp_path / "nvml.log", interval_s=0.1, env=driver.env) if driver else None
        if watch:
            watch.wait_for_first(DEADLINE_S)
        backend = LocalBackend(
            [] if driver else cpu_devices(2),
            handler=f"{HANDLERS}:Obliging",
            handler_options={},
            log_dir=tmp_path / "logs",
            watch=watch,
            rules=CardRules(only=(CARD,), workers=2),
        )
        pools.append(Pool(backend, stall_s=60.0))
        return PoolWorkers(pools[-1], "cuda" if driver else "cpu", time.monotonic() + budget_s), pools[-1]

    yield make
    for pool in pools:
        pool.close()


def ask(workers: PoolWorkers, do: str, count: int = 1, **more: Any) -> list[Done | Failed]:
    return workers.ask({"do": do, **more}, count)


def test_one_worker_or_two_at_once(make_workers: MakeWorkers) -> None:
    """Each answers for itself."""
    workers, _ = make_workers()
    [one] = ask(workers, "describe")
    assert isinstance(one, Done)
    both = ask(workers, "describe", 2)
    assert [end.result["device"] for end in both if isinstance(end, Done)] == ["cpu:0", "cpu:1"]


def test_the_time_of_a_test_is_limited(make_workers: MakeWorkers) -> None:
    """A check that runs then is cancelled, and none is begun after it."""
    workers, _ = make_workers(budget_s=0.0)
    [end] = ask(workers, "describe")
    assert isinstance(end, Failed)
    assert (end.code, "time" in end.message) == ("timeout", True)


def test_a_running_check_is_cancelled_when_the_time_is_up(make_workers: MakeWorkers) -> None:
    """It is no fault of the device."""
    workers, _ = make_workers()
    workers._deadline_s = time.monotonic() + 0.3
    [end] = ask(workers, "wait for cancel")
    assert isinstance(end, Failed)
    assert end.code == "timeout"


def test_a_worker_that_dies_is_reported_and_replaced(make_workers: MakeWorkers) -> None:
    """The next check runs on a new one."""
    workers, _ = make_workers()
    [end] = ask(workers, "leave", code=3)
    assert isinstance(end, Failed)
    assert end.code == "worker_died"
    assert isinstance(ask(workers, "describe")[0], Done)


def test_killed_workers_of_a_processor_free_their_memory(make_workers: MakeWorkers) -> None:
    """Both are gone when it says so."""
    workers, pool = make_workers()
    pids = [pid for name in ("cpu:0", "cpu:1") if (pid := get_device(pool, name).worker_pid)]
    kept_bytes, seconds = workers.kill(GIB, 0)
    assert (kept_bytes, seconds < 15) == (0, True)
    assert len(pids) == 2
    until(lambda: are_gone(pids), DEADLINE_S, lambda: f"of {pids} some run")


def test_memory_of_a_card_is_read_from_the_driver(driver: PretendDriver, make_workers: MakeWorkers) -> None:
    """What the killed worker held is free; what another process holds or took before doesn't count."""
    driver.set_devices(f"gpu {CARD} {24 * GIB} 0 {GIB}")
    workers, pool = make_workers(driver)
    [end] = ask(workers, "describe")
    assert isinstance(end, Done)
    assert end.result["env"]["CUDA_VISIBLE_DEVICES"] == CARD
    pid = get_device(pool, CARD).worker_pid
    assert pid is not None
    driver.set_devices(f"gpu {CARD} {24 * GIB} {9 * GIB} {GIB}")
    driver.hold_memory(pid, 0, 6 * GIB)
    poll_until(pool, lambda _: get_device(pool, CARD).held_bytes == 6 * GIB)
    assert workers.kill(6 * GIB, GIB)[0] == 0


def test_memory_that_a_driver_keeps_is_reported(
    driver: PretendDriver, make_workers: MakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while it is given up."""
    monkeypatch.setattr("agent.selftest.workers.FREED_S", 1.0)
    driver.set_devices(f"gpu {CARD} {24 * GIB} {5 * GIB} {GIB}")
    workers, _ = make_workers(driver)
    kept_bytes, seconds = workers.kill(5 * GIB, GIB)
    assert (kept_bytes, seconds >= 1.0) == (5 * GIB, True)


def test_a_card_that_shares_the_memory_has_no_figures(driver: PretendDriver, make_workers: MakeWorkers) -> None:
    """Its workers are gone, which is all that can be known."""
    driver.set_devices(f"gpu {CARD} 0 0 0")
    workers, _ = make_workers(driver)
    assert workers.kill(5 * GIB, 0)[0] == 0
