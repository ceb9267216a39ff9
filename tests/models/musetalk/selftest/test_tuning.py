"""Batch sizes and pace of the tiny networks on a processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.musetalk.inpainting.batching import BatchSizes
from models.musetalk.selftest import tuning
from models.musetalk.selftest.loading import OpenNetworks, open_networks
from models.musetalk.selftest.tuning import Pace, measure_batches, measure_compiled, measure_pace

CPU, NOWHERE = torch.device("cpu"), Path("/nowhere")


@pytest.fixture(scope="module")
def networks() -> OpenNetworks:
    return open_networks(NOWHERE, CPU, "fp32", batch_size=1)


@pytest.fixture(autouse=True)
def open_once(networks: OpenNetworks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same networks for all tests of this file, which paint nothing but black."""
    networks.inpainter.set_sizes(BatchSizes(4, 1, 1))
    monkeypatch.setattr(tuning, "open_networks", lambda *_args, **_options: networks)
    monkeypatch.setattr(tuning, "_open", {})


def paint_black(latents: Any, _windows: Any) -> Any:
    return np.zeros((len(latents), 256, 256, 3), np.uint8)


def test_batches_up_to_what_memory_allows(networks: OpenNetworks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its size; decoding never takes more at once than jobs do."""
    seen: list[BatchSizes] = []

    def paint(latents: Any, windows: Any) -> Any:
        seen.append(networks.inpainter.sizes)
        return paint_black(latents, windows)

    monkeypatch.setattr(networks.inpainter, "inpaint", paint)
    found = measure_batches(CPU, NOWHERE, lambda: None)
    assert (set(found["fps"]), found["networks"], found["card"]) == ({"1", "2", "4"}, "tiny", "cpu")
    assert set(seen) == {BatchSizes(1, 1, 1), BatchSizes(2, 1, 1), BatchSizes(4, 1, 1)}


def test_a_batch_without_room_is_left_out(networks: OpenNetworks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether memory runs out or the loop goes on with half."""

    def paint(latents: Any, windows: Any, *, halves: bool) -> Any:
        if networks.inpainter.sizes.unet == 4:
            if not halves:
                raise MemoryError
            networks.inpainter.sizes = BatchSizes(2, 1, 1)
        return paint_black(latents, windows)

    for halves in (False, True):
        networks.inpainter.set_sizes(BatchSizes(4, 1, 1))
        monkeypatch.setattr(networks.inpainter, "inpaint", lambda *given, halves=halves: paint(*given, halves=halves))
        assert set(measure_batches(CPU, NOWHERE, lambda: None)["fps"]) == {"1", "2"}


def test_a_processor_compiles_nothing() -> None:
    """And says so."""
    assert measure_compiled(CPU, NOWHERE, 4, NOWHERE, lambda: None) == {"state": "cards only"}


def test_the_pace_is_that_of_painting_and_encoding() -> None:
    """The first call opens the networks alone; parts are made until the time is up."""
    asked = {"models_dir": str(NOWHERE), "batch": 2, "compile": False, "encoder": "libx264", "seconds": 0.0}
    assert measure_pace(CPU, Pace.read({**asked, "cache": "/nowhere"}), lambda: None)["frames"] == 0
    assert list(tuning._open) == [(NOWHERE, 2, None)]
    ticks: list[int] = []
    found = measure_pace(CPU, Pace.read({**asked, "cache": "/x", "seconds": 0.001}), lambda: ticks.append(1))
    assert (found["frames"], len(ticks)) == (2, 2)
    assert min(found["seconds"], found["cpu_s"]) > 0
