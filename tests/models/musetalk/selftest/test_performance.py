"""Speed and memory of the tiny networks on a processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.musetalk.inpainting import forms
from models.musetalk.selftest import loading, performance
from models.musetalk.selftest.performance import (
    compare_forms,
    hold_networks,
    measure_copies,
    measure_speed,
    paint_and_hash,
)
from tests.models.musetalk.selftest.pretend_card import CARD, PretendTorch

MIB = 1 << 20
CPU, NOWHERE = torch.device("cpu"), Path("/nowhere")


@pytest.mark.slow
def test_each_stage_has_a_speed_and_memory_is_read() -> None:
    """Frames a second of the stages of a job, and bytes before, at the peak and after."""
    told: list[int] = []
    found = measure_speed(CPU, NOWHERE, lambda: told.append(1))
    assert set(found["fps"]) == {"whisper", "detect", "landmarks", "parse", "encode", "paint"}
    assert min(found["fps"].values()) > 0
    assert found["memory_bytes"]["peak"] >= found["memory_bytes"]["before"] > 0
    assert len(told) == len(found["fps"])


@pytest.mark.slow
def test_the_same_frames_have_one_hash() -> None:
    """However often they are painted."""
    first, second = (paint_and_hash(CPU, NOWHERE, lambda: None) for _ in range(2))
    assert first["hashes"] == second["hashes"]
    assert len(first["hashes"]) == 1


def test_networks_are_held_until_the_worker_is_killed() -> None:
    """They stay loaded after the check."""
    try:
        assert hold_networks(CPU, NOWHERE)["held_bytes"] > 0
        assert [networks.kind for networks in performance._held] == ["tiny"]
    finally:
        performance._held.clear()


def test_copies_of_a_card_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both directions from pinned memory, and from pageable memory; the clock runs until the card is done."""
    pretend = PretendTorch()
    for module in (performance, forms):
        monkeypatch.setattr(module, "torch", pretend)
    monkeypatch.setitem(performance.COPY_BYTES, "cuda", 1 << 20)
    found = measure_copies(CARD)
    assert set(found) == {"to the card", "from the card", "pageable to the card"}
    assert min(found.values()) > 0
    assert pretend.calls.count("synchronize") == 2 * 3 * (performance.ROUNDS + 1)


def test_memory_of_a_card_is_that_of_the_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak counts from the load on; what is cached is given back before the last look."""
    pretend = PretendTorch(5 * MIB, 7 * MIB)
    real = loading.open_networks(NOWHERE, CPU, "fp32")
    for module in (performance, loading, forms):
        monkeypatch.setattr(module, "torch", pretend)
    monkeypatch.setattr(performance, "choose_precision", lambda _device: "fp16")
    monkeypatch.setattr(performance, "open_networks", lambda *_: real)
    monkeypatch.setattr(performance, "_list_stages", lambda *_: [("paint", 25, lambda: None)])
    found = measure_speed(CARD, NOWHERE, lambda: None)
    assert found["memory_bytes"] == {"before": 5 * MIB, "peak": 900 * MIB, "after": 7 * MIB}
    assert pretend.calls[:3] == ["synchronize", "empty_cache", "reset_peak_memory_stats"]
    assert pretend.calls[-2:] == ["synchronize", "empty_cache"]


def test_a_processor_times_the_forms_of_tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever weights are installed, and chooses none: all processors run the usual one."""
    monkeypatch.setattr(loading, "choose_kind", lambda _: "installed")
    found = compare_forms(CPU, NOWHERE, lambda: None)
    assert (found["networks"], found["card"], found["chosen"]) == ("tiny", "", "usual")
    assert list(found["forms"]) == forms.list_forms(CPU)
    assert all(one["is_same"] for one in found["forms"].values())


def test_a_card_chooses_the_fastest_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the networks that jobs use, in the batches that they use; the type of the card is what torch calls it."""
    pretend = PretendTorch()
    pretend.cuda.get_device_name = lambda _: "Card"
    real = loading.open_networks(NOWHERE, CPU, "fp32")
    for module in (performance, loading):
        monkeypatch.setattr(module, "torch", pretend)
    monkeypatch.setattr(performance, "choose_precision", lambda _device: "fp16")
    monkeypatch.setattr(performance, "open_networks", lambda *_: real)
    times = {"usual": forms.Measurement(2, 8, True), "norms": forms.Measurement(2, 6, True)}
    asked: list[Any] = []

    def measure(*given: Any) -> dict[str, forms.Measurement]:
        asked.append(given)
        return times

    monkeypatch.setattr(performance, "measure_forms", measure)
    found = compare_forms(CARD, NOWHERE, lambda: None)
    assert (found["card"], found["chosen"], found["batch"]) == ("Card", "norms", real.inpainter.sizes.decode)
    assert found["forms"]["norms"] == {"unet_ms": 2, "decode_ms": 6, "is_same": True}
    assert asked[0][:2] == real.inpainter.networks
