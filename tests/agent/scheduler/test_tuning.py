"""tune.json: what is kept of it, what holds, and how many workers a card gets by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.scheduler.tuning import Choice, card_rules, find_tunings, read_tunings, write_tunings
from agent.settings import Settings
from gpu_pool.cards import Cards, list_devices
from gpu_pool.types import Device
from tests.agent.scheduler.tunings import CHOICE, make_tuning
from tests.agent.settings_texts import SMALLEST, loaded


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return loaded(tmp_path, SMALLEST)


def test_each_device_keeps_its_last_tuning(settings: Settings) -> None:
    """Of two cards of a type the newest counts for both: equal cards give equal bytes."""
    path = settings.folders.tuning_file
    other = CHOICE.model_copy(update={"batch_size": 4})
    write_tunings(path, [make_tuning(settings, "GPU-a", at_ms=9), make_tuning(settings, "GPU-b", at_ms=3)])
    write_tunings(path, [make_tuning(settings, "GPU-b", at_ms=10, choice=other)])
    assert [(one.device, one.at_ms) for one in read_tunings(path)] == [("GPU-a", 9), ("GPU-b", 10)]
    assert find_tunings(settings)["Card"].choice == other


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "devices": []}', '{"devices": [{"device": 1}]}'])
def test_a_file_of_another_kind_tunes_nothing(settings: Settings, text: str) -> None:
    """Jobs run as they would without it."""
    path = settings.folders.tuning_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert find_tunings(settings) == {}
    write_tunings(path, [make_tuning(settings)])
    assert set(find_tunings(settings)) == {"Card"}


def test_other_torch_or_weights_make_it_void(settings: Settings) -> None:
    """What was fastest with them need not be now."""
    path = settings.folders.tuning_file
    for stale in ({"torch": "1.0"}, {"weights": "f00"}):
        write_tunings(path, [make_tuning(settings, **stale)])
        assert find_tunings(settings) == {}


@pytest.mark.parametrize("wrong", [{"batch_size": 32}, {"batch_size": 0}, {"workers": 0}, {"encoder": "h265"}])
def test_a_choice_is_one_that_jobs_can_run(wrong: dict[str, object]) -> None:
    """Larger batches than 16 would not fit into the spans."""
    with pytest.raises(ValidationError):
        Choice.model_validate({**CHOICE.model_dump(), **wrong})


def test_auto_takes_as_many_workers_as_were_fastest(settings: Settings, make_driver_cards: Callable[[], Cards]) -> None:
    """On that type of card; another type, and a machine that was not tuned, have one. A number is a number."""

    def count(given: Settings) -> list[str]:
        return [device.id for device in list_devices(make_driver_cards(), card_rules(given))]

    assert count(settings) == ["GPU-a", "GPU-b"]
    write_tunings(settings.folders.tuning_file, [make_tuning(settings), make_tuning(settings, "cpu", "cpu")])
    assert count(settings) == ["GPU-a", "GPU-a/2", "GPU-b"]
    three = settings.devices.model_copy(update={"workers_per_device": 3})
    assert len(count(settings.model_copy(update={"devices": three}))) == 6


@pytest.fixture
def make_driver_cards() -> Callable[[], Cards]:
    """Two types of card."""
    return lambda: Cards((Device("GPU-a", "cuda", name="Card"), Device("GPU-b", "cuda", name="Other card")))
