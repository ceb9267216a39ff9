"""Pools of real workers on pretended cards: how they follow what the driver reports."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_pool import cards
from gpu_pool.cards import CardRules, CardWatch
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import DeviceChanged, Done, Failed, Span, Task
from tests.gpu_pool.pools import (
    DEADLINE_S,
    HANDLERS,
    filter_messages,
    get_device,
    poll_until,
    wait_for_state,
)
from tests.nvmlstub import PretendDriver

GIB = 1 << 30
MakePoolOfCards = Callable[..., Pool]
A, B = "GPU-aaaa1111", "GPU-bbbb2222"


def gpu(name: str, used: int = 0) -> str:
    return f"gpu {name} {24 * GIB} {used} {GIB}"


@pytest.fixture
def make_pool_of_cards(driver: PretendDriver, tmp_path: Path) -> Iterator[MakePoolOfCards]:
    """Make pools of real workers on the pretended cards."""
    made: list[Pool] = []

    def make(rules: CardRules | None = None, cpus: int = 0, **more: Any) -> Pool:
        watch = CardWatch(tmp_path / "nvml.log", interval_s=0.1, env=driver.env)
        watch.wait_for_first(DEADLINE_S)
        backend = LocalBackend(
            cpu_devices(cpus),
            handler=f"{HANDLERS}:Obliging",
            handler_options={"common": 1},
            kind_options={"cuda": {"preload": "musetalk"}},
            unloaded_options={"preload": ""},
            log_dir=tmp_path / "logs",
            env=driver.env,
            watch=watch,
            rules=rules,
        )
        made.append(Pool(backend, stall_s=30.0, **more))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def start_on_card(pool: Pool, do: str, gib: float = 0, **payload: Any) -> str:
    """Start a span on a card; return the device, "" if it fits on none."""
    task = Task(do, "cuda", (Span(0, 10),), memory_bytes=int(gib * GIB), payload={"do": do, **payload})
    plan = pool.plan(task, 0)
    if plan is None:
        return ""
    pool.start(plan)
    return plan.assignments[0].device


def test_two_workers_on_each_card(driver: PretendDriver, make_pool_of_cards: MakePoolOfCards) -> None:
    """Each sees only its own card and gets the options of its kind; an excluded card has none."""
    driver.set_devices(gpu(A), gpu(B), gpu("GPU-cccc3333"))
    pool = make_pool_of_cards(CardRules(workers=2, exclude=("GPU-cccc",)), cpus=1)
    names = [A, f"{A}/2", B, f"{B}/2"]
    assert sorted(each.id for each in pool.devices()) == sorted([*names, "cpu:0"])
    for name in names:
        wait_for_state(pool, "idle", name)
    seen = {}
    for _ in names:
        started = start_on_card(pool, "describe")
        result = filter_messages(poll_until(pool, lambda events: filter_messages(events, Done)), Done)[0].result
        assert result["options"] == {"common": 1, "preload": "musetalk"}
        seen[started] = result["env"]["CUDA_VISIBLE_DEVICES"]
        pool.drain(started)
    assert seen == {A: A, f"{A}/2": A, B: B, f"{B}/2": B}


def test_memory_that_others_take_and_free_is_noticed(
    driver: PretendDriver, make_pool_of_cards: MakePoolOfCards
) -> None:
    """The poll that waits returns, the task has a reason to wait, and then it starts."""
    driver.set_devices(gpu(A))
    pool = make_pool_of_cards()
    wait_for_state(pool, "idle", A)
    with subprocess.Popen(["sleep", "600"]) as program:
        driver.hold_memory(program.pid, 0, 20 * GIB)
        poll_until(pool, lambda _: get_device(pool, A).free_bytes == 3 * GIB)
        assert start_on_card(pool, "count", 8) == ""
        waits = Task("t", "cuda", (Span(0, 1),), memory_bytes=8 * GIB)
        assert pool.wait_reason(waits).endswith(f"is 3072 MiB, on {A}.")
        program.kill()
    events = poll_until(pool, lambda events: any(isinstance(event, DeviceChanged) for event in events))
    assert [event.device.free_bytes for event in events if isinstance(event, DeviceChanged)] == [23 * GIB]
    assert start_on_card(pool, "count", 8) == A


def test_gauges_of_a_card_follow_the_driver(driver: PretendDriver, make_pool_of_cards: MakePoolOfCards) -> None:
    """All its workers show them; a card that is gone shows none."""
    driver.set_devices(gpu(A))
    driver.set_gauges("0 61 97 299600")
    pool = make_pool_of_cards(CardRules(workers=2))
    for name in (A, f"{A}/2"):
        device = wait_for_state(pool, "idle", name)
        assert (device.temperature_c, device.load_percent, device.power_w) == (61, 97, 300)
    driver.set_devices(gpu(B))
    lost = wait_for_state(pool, "lost", A)
    assert (lost.temperature_c, lost.load_percent, lost.power_w) == (None, None, None)


def test_what_a_worker_holds_is_known_by_its_pid(driver: PretendDriver, make_pool_of_cards: MakePoolOfCards) -> None:
    """It is available to that worker."""
    driver.set_devices(gpu(A))
    pool = make_pool_of_cards()
    worker = wait_for_state(pool, "idle", A)
    assert worker.worker_pid is not None
    driver.hold_memory(worker.worker_pid, 0, 20 * GIB)
    poll_until(pool, lambda _: get_device(pool, A).held_bytes == 20 * GIB)
    assert get_device(pool, A).free_bytes == 3 * GIB
    assert start_on_card(pool, "count", 22) == A


def test_a_card_that_falls_off_the_bus_and_comes_back(
    driver: PretendDriver, make_pool_of_cards: MakePoolOfCards
) -> None:
    """It costs one span; the other card goes on; it returns without an operator."""
    driver.set_devices(gpu(A), gpu(B))
    pool = make_pool_of_cards()
    for name in (A, B):
        wait_for_state(pool, "idle", name)
    start_on_card(pool, "wait for cancel")
    driver.set_faults("nvmlDeviceGetMemoryInfo_v2 0 15 0")
    seen = poll_until(pool, lambda events: filter_messages(events, Failed))
    assert [(end.fault, end.code) for end in filter_messages(seen, Failed)] == [("worker", "device_lost")]
    assert get_device(pool, A).state == "lost"
    assert get_device(pool, A).worker_pid is None
    assert start_on_card(pool, "count") == B
    driver.set_faults()
    wait_for_state(pool, "idle", A)


def test_cards_that_appear_later_get_workers(driver: PretendDriver, make_pool_of_cards: MakePoolOfCards) -> None:
    """A driver that is loaded after the daemon, and a card that isn't listed any more."""
    pool = make_pool_of_cards()
    assert pool.devices() == []
    driver.set_devices(gpu(A), gpu(B))
    poll_until(pool, lambda _: len(pool.devices()) == 2)
    wait_for_state(pool, "idle", A)
    driver.set_devices(gpu(B))
    assert wait_for_state(pool, "lost", A).reason == "The driver doesn't list the card any more."
    driver.set_devices()
    wait_for_state(pool, "lost", B)


def test_mig_instances_are_devices(driver: PretendDriver, make_pool_of_cards: MakePoolOfCards) -> None:
    """Each has a worker of its own, which sees only the instance."""
    driver.set_devices(gpu(A), f"mig MIG-x {20 * GIB} 0 0", f"mig MIG-y {20 * GIB} 0 0")
    pool = make_pool_of_cards()
    for name in ("MIG-x", "MIG-y"):
        wait_for_state(pool, "idle", name)
    started = start_on_card(pool, "describe")
    result = filter_messages(poll_until(pool, lambda events: filter_messages(events, Done)), Done)[0].result
    assert result["env"]["CUDA_VISIBLE_DEVICES"] == started


def test_a_silent_driver_is_noticed_while_the_pool_waits(
    driver: PretendDriver, make_pool_of_cards: MakePoolOfCards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No span starts by stale figures; the worker stays, and gets one when it answers again."""
    monkeypatch.setattr(cards, "STALE_S", 1.0)
    driver.set_devices(gpu(A))
    pool = make_pool_of_cards()
    worker = wait_for_state(pool, "idle", A).worker_pid
    driver.set_faults("nvmlDeviceGetMemoryInfo_v2 -1 0 4000")
    poll_until(pool, lambda _: get_device(pool, A).reason == "The NVIDIA driver doesn't answer.")
    assert start_on_card(pool, "count") == ""
    driver.set_faults()
    poll_until(pool, lambda _: get_device(pool, A).reason == "")
    assert start_on_card(pool, "count") == A
    assert get_device(pool, A).worker_pid == worker


def test_cards_that_the_environment_hides_get_no_worker(
    driver: PretendDriver, make_pool_of_cards: MakePoolOfCards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA_VISIBLE_DEVICES of the daemon limits the pool; each worker still sees its own card alone."""
    driver.set_devices(gpu(A), gpu(B))
    monkeypatch.setitem(driver.env, "CUDA_VISIBLE_DEVICES", "1")
    pool = make_pool_of_cards()
    wait_for_state(pool, "idle", B)
    assert [device.id for device in pool.devices()] == [B]
    start_on_card(pool, "describe")
    result = filter_messages(poll_until(pool, lambda events: filter_messages(events, Done)), Done)[0].result
    assert result["env"]["CUDA_VISIBLE_DEVICES"] == B


def test_a_worker_whose_number_the_driver_doesnt_know(
    driver: PretendDriver, make_pool_of_cards: MakePoolOfCards
) -> None:
    """In a container its memory isn't credited by a wrong number: what is free is what it may take."""
    driver.set_devices(gpu(A))
    pool = make_pool_of_cards()
    worker = wait_for_state(pool, "idle", A)
    assert worker.worker_pid is not None
    driver.hold_memory(worker.worker_pid, 0, 20 * GIB, number=(1 << 22) + 17)
    poll_until(pool, lambda _: get_device(pool, A).free_bytes == 3 * GIB)
    assert get_device(pool, A).held_bytes == 0
    assert start_on_card(pool, "count", 22) == ""
    assert start_on_card(pool, "count", 2) == A


def test_a_worker_that_gave_its_memory_back_gets_other_options(
    driver: PretendDriver, make_pool_of_cards: MakePoolOfCards
) -> None:
    """The process is another one, which is told to load nothing."""
    driver.set_devices(gpu(A))
    pool = make_pool_of_cards(unload_s=1000.0)
    wait_for_state(pool, "idle", A)
    start_on_card(pool, "update stats", stats={"model": "musetalk"})
    poll_until(pool, lambda events: filter_messages(events, Done))
    before = get_device(pool, A).worker_pid
    assert pool.unload(A)
    poll_until(pool, lambda _: get_device(pool, A).state == "idle" and get_device(pool, A).worker_pid != before)
    start_on_card(pool, "describe")
    result = filter_messages(poll_until(pool, lambda events: filter_messages(events, Done)), Done)[0].result
    assert result["options"] == {"common": 1, "preload": ""}
