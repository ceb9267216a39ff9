"""What `musedrop tune` chooses by invented figures, and one run on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.errors import UserError
from agent.scheduler.tuning import find_tunings, read_tunings
from agent.selftest import tune
from agent.selftest.run import CPU
from agent.selftest.tune import Measuring, Pace, choose_batch, choose_pace, tune_devices
from agent.settings import Settings
from gpu_pool.types import Done, Failed
from models import catalog
from tests.agent.selftest.figures import CARD

FIGURES: dict[str, dict[str, Any]] = {
    "batch rates": {"networks": "installed", "card": "Card", "fps": {"1": 40.0, "4": 90.0, "8": 118.0, "16": 120.0}},
    "compiled rate": {"state": "ready", "fps": 140.0},
    "encoders": {"libx264": {"state": "usable"}, "h264_nvenc": {"state": "usable"}},
}
NO_MEMORY = Failed("t", 0, 1, "out_of_memory", "memory ran out", fault="job", hint="free memory")


class CannedCard:
    """Workers of a card whose frames a second, all together, are those of `rates` for 1, 2, ... workers."""

    def __init__(self, rates: list[float], changes: Mapping[str, Any] | None = None, x264_cpu_s: float = 0.004) -> None:
        self.rates, self.figures, self.x264_cpu_s = rates, {**FIGURES, **(changes or {})}, x264_cpu_s
        self.asked: list[Mapping[str, Any]] = []

    def ask(self, payload: Mapping[str, Any], workers: int = 1) -> list[Done | Failed]:
        self.asked.append(payload)
        if payload["check"] != "pace":
            told = self.figures[payload["check"]]
            return [told if isinstance(told, Failed) else Done("t", 0, 1, 1.0, told)]
        if workers > len(self.rates):
            return [NO_MEMORY] * workers
        frames = int(self.rates[workers - 1] * 100 / workers)
        cpu_s = (self.x264_cpu_s if payload["encoder"] == "libx264" else 0.001) * frames
        told = {"frames": frames, "seconds": 100.0, "cpu_s": cpu_s}
        return [Done("t", number, number + 1, 1.0, told) for number in range(workers)]

    def kill(self, held_bytes: int, enough_bytes: int) -> tuple[int, float]:
        raise NotImplementedError


def choose(card: CannedCard, cards: int = 1, cores: int = 16) -> dict[str, Any]:
    choice, _ = Measuring(card, CARD, {}, lambda _step: None).choose(4, cards, cores)
    return choice.model_dump()


def test_the_fastest_of_all_is_chosen() -> None:
    """The smallest batch that is nearly as fast as the best, compiled code that gains, and the fewest workers."""
    card = CannedCard([100.0, 130.0, 131.0, 200.0])
    assert choose(card) == {"batch_size": 8, "compile": True, "encoder": "h264_nvenc", "workers": 2}
    paced = [payload for payload in card.asked if payload["check"] == "pace"]
    assert {(payload["batch"], payload["compile"]) for payload in paced} == {(8, True)}
    assert {payload["seconds"] for payload in paced} == {0.0, tune.PACE_S}


@pytest.mark.parametrize("compiled", [{"state": "ready", "fps": 119.0}, {"state": "differs"}, {"state": "failed"}])
def test_code_that_gains_nothing_is_not_compiled(compiled: dict[str, Any]) -> None:
    """Neither is code that gives other pictures."""
    assert choose(CannedCard([100.0], {"compiled rate": compiled}))["compile"] is False


def test_workers_are_added_while_they_fit_into_memory() -> None:
    """The first must; of the others the last that ran counts."""
    assert choose(CannedCard([100.0, 150.0]))["workers"] == 2
    with pytest.raises(UserError, match="memory ran out; free memory"):
        choose(CannedCard([]))


@pytest.mark.parametrize(
    ("cards", "cores", "nvenc_fps", "chosen"),
    [(1, 16, 100.0, "h264_nvenc"), (1, 16, 90.0, "libx264"), (4, 1, 90.0, "h264_nvenc"), (4, 16, 90.0, "libx264")],
)
def test_cards_don_t_wait_for_the_processor(cards: int, cores: int, nvenc_fps: float, chosen: str) -> None:
    """x264 is taken where it is faster and the cores keep up with all cards; else NVENC."""
    paces = [Pace(1, "libx264", 100.0, 0.004), Pace(1, "h264_nvenc", nvenc_fps, 0.001)]
    assert choose_pace(paces, cards, cores).encoder == chosen


def test_a_card_without_nvenc_uses_x264() -> None:
    """NVENC isn't measured there; without any encoder nothing can be tuned."""
    states = {"libx264": {"state": "usable"}, "h264_nvenc": {"state": "it fails"}}
    card = CannedCard([100.0], {"encoders": states})
    assert choose(card)["encoder"] == "libx264"
    assert {payload["encoder"] for payload in card.asked if payload["check"] == "pace"} == {"libx264"}
    with pytest.raises(UserError, match="no encoder works"):
        choose(CannedCard([100.0], {"encoders": {name: {"state": "it fails"} for name in states}}))


def test_a_card_that_fails_is_named() -> None:
    """With what to do."""
    failed = Failed("t", 0, 1, "worker_died", "its worker died", fault="worker")
    with pytest.raises(UserError, match=f"{CARD.id} can't be tuned: its worker died; `musedrop selftest` shows"):
        choose(CannedCard([100.0], {"batch rates": failed}))


def test_small_batches_are_worth_three_per_cent() -> None:
    """They leave less padding at the ends of short jobs."""
    assert choose_batch({1: 50.0, 4: 98.0, 16: 100.0}) == 4
    assert choose_batch({4: 100.0, 16: 98.0}) == 4


def test_without_packages_there_is_nothing_to_tune(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says what to install."""
    monkeypatch.setattr(catalog, "find_missing_packages", lambda _engine: ["torch"])
    with pytest.raises(UserError, match=r"torch not installed; run `pip install"):
        tune_devices(settings, [CPU], lambda *_: None)


def test_a_processor_is_tuned_by_real_workers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks paint in a process of its own; what they found is in tune.json, and holds."""
    monkeypatch.setattr(tune, "MOST_WORKERS", 1)
    monkeypatch.setattr(tune, "PACE_S", 0.01)
    told: list[str] = []
    [tuning] = tune_devices(settings, [CPU], lambda _target, step: told.append(step))
    assert told == ["batch sizes", "compiled code", "encoders", "1 at once, libx264"]
    assert set(tuning.figures["batches"]) == {"1", "2", "4"}
    assert (tuning.card, tuning.figures["networks"], tuning.figures["compiled"]) == (
        "cpu",
        "tiny",
        {"state": "cards only"},
    )
    assert tuning.figures["paces"][0]["fps"] > 0
    assert read_tunings(settings.folders.tuning_file) == (tuning,)
    assert find_tunings(settings) == {"cpu": tuning}
