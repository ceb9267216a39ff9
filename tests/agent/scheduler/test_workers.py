"""The pool that the settings ask for, with real workers over a pretended driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.fs.folders import make_folders
from agent.scheduler.handlers import HANDLER
from agent.scheduler.workers import list_open_logs, open_pool
from agent.settings import CurrentSettings, Settings
from gpu_pool.types import Device, Span, Task
from tests.agent.settings_texts import SMALLEST, loaded
from tests.agent.simulation import Simulation, cpus
from tests.gpu_pool.pools import poll_until, wait_for_state
from tests.nvmlstub import PretendDriver

GIB = 1 << 30
A, B, C = (f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "abc")


def load_devices(folder: Path, devices: str) -> Settings:
    (folder / "share").mkdir(exist_ok=True)
    return loaded(folder, f"{SMALLEST}[devices]\ncpu_workers = 1\n{devices}\n")


@pytest.fixture
def driver_alone(driver: PretendDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that isn't loaded, for the child processes of this one."""
    for name, value in driver.env.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def three_cards(driver: PretendDriver, monkeypatch: pytest.MonkeyPatch) -> PretendDriver:
    """Three cards, for the child processes of this one."""
    for name, value in driver.env.items():
        monkeypatch.setenv(name, value)
    driver.set_devices(*(f"gpu {name} {24 * GIB} {used * GIB} {GIB}" for name, used in ((A, 0), (B, 20), (C, 0))))
    return driver


@pytest.mark.usefixtures("three_cards")
def test_a_pool_by_the_settings(tmp_path: Path) -> None:
    """Two workers on each card that isn't excluded, less the reserve; a real worker is ready."""
    settings = load_devices(tmp_path, f'workers_per_device = 2\nreserve_mib = 2048\nexclude = ["{C[:12]}"]')
    make_folders(settings.folders.of_state)
    with open_pool(CurrentSettings(settings), HANDLER) as pool:
        assert sorted(device.id for device in pool.devices()) == sorted([A, f"{A}/2", B, f"{B}/2", "cpu:0"])
        assert pool.wait_reason(Task("t", "cuda", (Span(0, 1),), memory_bytes=21 * GIB)) == ""
        reason = pool.wait_reason(Task("t", "cuda", (Span(0, 1),), memory_bytes=22 * GIB))
        assert reason == f"It needs 22528 MiB of a card; the most that is free and not promised is 21504 MiB, on {A}."
        assert wait_for_state(pool, "idle", A).held_bytes == 0


def test_cards_come_while_the_daemon_runs(three_cards: PretendDriver, tmp_path: Path) -> None:
    """A daemon that started before its driver finds the cards later."""
    three_cards.set_devices()
    settings = load_devices(tmp_path, f'only = ["{A}"]')
    make_folders(settings.folders.of_state)
    with open_pool(CurrentSettings(settings), HANDLER) as pool:
        assert [device.id for device in pool.devices()] == ["cpu:0"]
        three_cards.set_devices(f"gpu {B} {24 * GIB} 0 0", f"gpu {A} {24 * GIB} 0 0")
        poll_until(pool, lambda _: [device.id for device in pool.devices()] == ["cpu:0", A])


@pytest.mark.usefixtures("driver_alone")
@pytest.mark.parametrize(("exclude", "known"), [("", [A]), (f'exclude = ["{A}"]', [])])
def test_cards_of_an_earlier_start_are_lost_while_the_driver_lists_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exclude: str, known: list[str]
) -> None:
    """A driver that isn't loaded is trouble then, and the device says so; a card that is excluded is not missed."""
    monkeypatch.setattr("gpu_pool.cards.DEVICE_FOLDER", str(tmp_path / "no files"))
    settings = load_devices(tmp_path, exclude)
    make_folders(settings.folders.of_state)
    earlier = [Device(A, "cuda", name="Card", card=A, state="lost")]
    with open_pool(CurrentSettings(settings), HANDLER, earlier) as pool:
        lost = [device for device in pool.devices() if device.kind == "cuda"]
        assert ("NVML error 9" in pool.driver_trouble) is bool(known)
        assert [(device.id, device.state, device.reason) for device in lost] == [
            (name, "lost", pool.driver_trouble) for name in known
        ]


def test_a_driver_that_was_upgraded_is_trouble(three_cards: PretendDriver, tmp_path: Path) -> None:
    """From the start, and no longer when the machine was rebooted."""
    three_cards.set_faults("nvmlInit -1 18 0")
    settings = load_devices(tmp_path, "")
    make_folders(settings.folders.of_state)
    with open_pool(CurrentSettings(settings), HANDLER) as pool:
        assert "reboot: the driver's library was upgraded" in pool.driver_trouble
        three_cards.set_faults()
        poll_until(pool, lambda _: not pool.driver_trouble and len(pool.devices()) == 4)


def test_logs_that_are_open_are_known(tmp_path: Path) -> None:
    """One for each worker, and that of the reader of the cards."""
    simulation = Simulation(tmp_path, cpus(2))
    names = {path.name for path in list_open_logs(simulation.settings.folders, simulation.pool)}
    simulation.close()
    assert names == {"nvml.log", "worker-cpu-0.log", "worker-cpu-1.log"}
