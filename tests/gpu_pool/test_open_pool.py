"""Settings of cards: the daemon's own pool over a pretended driver, and what doctor finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.doctor import check_cards
from agent.daemon import HANDLER
from agent.fs import make_folders
from agent.scheduler.workers import open_pool, choose_preload
from agent.settings import Settings
from agent.settings_file import BadSettings, load_settings
from gpu_pool.cards import Cards
from gpu_pool.types import Device, Span, Task
from models.catalog import ENGINES, is_installed
from tests.gpu_pool.pools import poll_until, wait_for_state
from tests.nvmlstub import PretendDriver

GIB = 1 << 30
A, B, C = (f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "abc")


def settings(folder: Path, devices: str) -> Settings:
    (folder / "share").mkdir(exist_ok=True)
    path = folder / "musedrop.toml"
    path.write_text(f'share = "share"\nstate = "state"\n[devices]\ncpu_workers = 1\n{devices}\n')
    return load_settings(path)


@pytest.fixture
def cards_here(driver: PretendDriver, monkeypatch: pytest.MonkeyPatch) -> PretendDriver:
    """Three cards that this process's children see."""
    for name, value in driver.env.items():
        monkeypatch.setenv(name, value)
    driver.set_devices(*(f"gpu {name} {24 * GIB} {used * GIB} {GIB}" for name, used in ((A, 0), (B, 20), (C, 0))))
    return driver


@pytest.mark.usefixtures("cards_here")
def test_a_pool_by_the_settings(tmp_path: Path) -> None:
    """Two workers on each card that isn't excluded, less the reserve; a real worker is ready."""
    asked = settings(tmp_path, f'workers_per_device = 2\nreserve_mib = 2048\nexclude = ["{C[:12]}"]')
    make_folders(asked.folders.of_state)
    with open_pool(asked, HANDLER) as pool:
        assert sorted(device.id for device in pool.devices()) == sorted([A, f"{A}/2", B, f"{B}/2", "cpu:0"])
        assert pool.wait_reason(Task("t", "cuda", (Span(0, 1),), memory_bytes=21 * GIB)) == ""
        told = pool.wait_reason(Task("t", "cuda", (Span(0, 1),), memory_bytes=22 * GIB))
        assert told == f"It needs 22528 MiB of a card; the most that is free and not promised is 21504 MiB, on {A}."
        assert wait_for_state(pool, "idle", A).held_bytes == 0


def test_cards_come_while_the_daemon_runs(cards_here: PretendDriver, tmp_path: Path) -> None:
    """A daemon that started before its driver finds the cards later."""
    cards_here.set_devices()
    asked = settings(tmp_path, f'only = ["{A}"]')
    make_folders(asked.folders.of_state)
    with open_pool(asked, HANDLER) as pool:
        assert [device.id for device in pool.devices()] == ["cpu:0"]
        cards_here.set_devices(f"gpu {B} {24 * GIB} 0 0", f"gpu {A} {24 * GIB} 0 0")
        poll_until(pool, lambda _: [device.id for device in pool.devices()] == ["cpu:0", A])


def test_only_what_auto_means_here_is_preloaded(tmp_path: Path) -> None:
    """Without weights nothing; with them MuseTalk, unless the settings say no."""
    asked = settings(tmp_path, "")
    assert choose_preload(asked) == ""
    for file in ENGINES["musetalk"].weights:
        path = asked.models_dir / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    expected = "musetalk" if is_installed(ENGINES["musetalk"]) else ""
    assert choose_preload(asked) == expected
    assert choose_preload(settings(tmp_path, "preload = false")) == ""


@pytest.mark.parametrize("name", ["0", "cuda:0", "GPU-", "NVIDIA H100", "GPU-a b c d", ""])
@pytest.mark.parametrize("key", ["only", "exclude"])
def test_cards_are_named_by_uuid(tmp_path: Path, key: str, name: str) -> None:
    """A number would mean another card after the next reboot."""
    with pytest.raises(BadSettings, match="should be the UUID of a card") as caught:
        settings(tmp_path, f'{key} = ["{name}"]')
    assert caught.value.key == f"devices.{key}"


def test_doctor_lists_cards(tmp_path: Path) -> None:
    """In use, left alone by the settings, and lost; with the driver and what is wrong with it."""
    found = Cards(
        (
            Device(A, "cuda", "Card", 24 * GIB, 23 * GIB),
            Device(B, "cuda", "Card", 24 * GIB, 23 * GIB),
            Device(C, "cuda", "Card", state="lost", reason="The card does not answer: GPU is lost."),
        ),
        ("Card 3 does not answer: GPU is lost.",),
        "999.01",
    )
    told = list(check_cards(found, settings(tmp_path, f'exclude = ["{B}"]')))
    assert [(finding.verdict, finding.what, finding.found) for finding in told] == [
        ("ok", "NVIDIA driver", "999.01"),
        ("note", "NVML", "Card 3 does not answer: GPU is lost."),
        ("ok", "GPU", f"Card {A}: 23.0 of 24.0 GiB free"),
        ("note", "GPU", f"Card {B}: 23.0 of 24.0 GiB free, not used"),
        ("bad", "GPU", f"Card {C}: The card does not answer: GPU is lost."),
    ]
