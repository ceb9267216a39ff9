"""What a worker measures of numbers: right ones, wrong ones, and none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from models.musetalk.selftest import accuracy
from models.musetalk.selftest.accuracy import (
    CPU,
    compare,
    compare_batches,
    compare_compiled,
    compare_face_networks,
    compare_faces,
    compare_networks,
    compare_precisions,
)

NOWHERE = Path("/nowhere")


def tick() -> None:
    """Report nothing."""


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 3e-4), ("bf16", 6e-2)])
def test_the_narrow_networks_are_right_on_this_processor(precision: str, limit: float) -> None:
    """Folded, and in bf16 with the channels last, they compute what the plain ones compute, within the limit."""
    found = compare_networks(CPU, precision, tick)
    assert set(found) == {"encode", "unet", "decode"}
    assert all(one["finite"] and one["error"] < limit for one in found.values()), found
    assert (precision == "fp32") == (max(one["error"] for one in found.values()) < 1e-4)


@pytest.mark.slow
def test_fp16_has_a_limit_that_rounding_keeps() -> None:
    """The plain modules can run it on a processor, slowly, which shows what rounding alone makes."""
    found = compare_networks(CPU, "fp16", tick)
    assert all(one["finite"] and 1e-4 < one["error"] < 1e-2 for one in found.values()), found


def test_face_networks_are_compared_each() -> None:
    """Detector, pose net, parser and Whisper; a processor agrees with itself."""
    found = compare_face_networks(CPU, tick)
    assert {name: one["error"] < 1e-6 for name, one in found.items()} == dict.fromkeys(
        ("detector", "pose", "parser", "whisper"), True
    )


def test_a_fold_that_computes_another_function_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is that of the wrong network alone."""

    def spoil(net: Any) -> Any:
        if hasattr(net, "decoder"):
            net.decoder.conv_out.weight.mul_(1.5)
        return net

    monkeypatch.setattr(accuracy, "optimise", spoil)
    found = compare_networks(CPU, "fp32", tick)
    assert (found["decode"]["error"] > 0.1, found["unet"]["error"] < 1e-4) == (True, True)


def test_numbers_that_are_not_finite() -> None:
    """They have no error that could be compared, and are named as such; JSON has no NaN."""
    wanted = torch.ones(4)
    for wrong in (float("nan"), float("inf")):
        assert compare(torch.tensor([1.0, wrong, 1.0, 1.0]), wanted)["finite"] is False
    exact = torch.tensor([1.0, 2.0, 1.0, 0.5])
    found = compare(torch.tensor([1.0, 2.0, 1.0, 0.0]), exact)
    assert (found["finite"], found["error"]) == (True, pytest.approx(0.2))
    assert found["largest"] == pytest.approx(0.5 / float(exact.std()))


@pytest.mark.slow
def test_a_mouth_in_the_usual_precision_and_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without weights the tiny networks paint it; the figures say so."""
    monkeypatch.setattr(accuracy, "choose_precision", lambda _device: "fp32")
    found = compare_precisions(CPU, NOWHERE, tick)
    expected = {"networks": "tiny", "precision": "fp32", "wanted": "fp32", "finite": True, "frames": 4}
    assert expected.items() <= found.items()
    assert (found["psnr_db"] > 45, found["spread"] > 1) == (True, True)


@pytest.mark.slow
def test_batches_of_one_and_full_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames don't depend on their company."""
    monkeypatch.setattr(accuracy, "choose_precision", lambda _device: "fp32")
    found = compare_batches(CPU, NOWHERE, tick)
    assert (found["batch"], found["psnr_db"] > 45) == (4, True)


def test_a_processor_compiles_nothing(tmp_path: Path) -> None:
    """Nothing is loaded for that."""
    assert compare_compiled(CPU, NOWHERE, tmp_path, tick) == {"state": "cards only"}


def test_faces_are_compared_at_the_mouth() -> None:
    """What differs elsewhere doesn't count; equal mouths have the highest PSNR, JSON has no infinity."""
    faces = np.full((1, 256, 256, 3), 100, np.uint8)
    other = faces.copy()
    other[:, :100] = 0
    assert compare_faces(faces, other) == {"psnr_db": 100.0, "largest": 0, "spread": 0.0}
    other[:, 200, 100] = 90
    assert compare_faces(faces, other)["largest"] == 10
    assert 60 < compare_faces(faces, other)["psnr_db"] < 100


class PretendInpainter:
    """Code that is compiled after some looks at it, or never."""

    dtype = torch.float16

    def __init__(self, *states: str) -> None:
        self._states = list(states)
        self.is_compiled = False

    def inpaint(self, latents: Any, _windows: Any) -> Any:
        return np.full((len(latents), 256, 256, 3), 101 if self.is_compiled else 100, np.uint8)

    def compile(self, _folder: Path) -> None:
        self.is_compiled = True

    def wait_until_compiled(self, _timeout_s: float) -> None:
        """Wait for nothing."""

    def stats(self) -> dict[str, Any]:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"compiled": {"unet": state, "decode": "ready"}} if state else {}


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (("waiting", "compiling", "ready"), "ready"),
        (("compiling", "differs"), "differs"),
        (("failed",), "failed"),
        (("compiling",), "compiling"),
        (("",), "failed"),
    ],
)
def test_compiled_code_of_a_card_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, states: tuple[str, ...], state: str
) -> None:
    """It is compared when it is ready, and named when it isn't; the worker reports meanwhile."""
    told: list[int] = []
    networks = SimpleNamespace(kind="tiny", inpainter=PretendInpainter(*states))
    inputs = np.zeros((25, 8, 32, 32), np.float32), np.zeros((25, 50, 64), np.float32)
    monkeypatch.setattr(accuracy, "open_networks", lambda *_: networks)
    monkeypatch.setattr(accuracy, "read_inputs", lambda *_: inputs)
    monkeypatch.setattr(accuracy, "make_kernel_folder", lambda *_: tmp_path)
    found = compare_compiled(torch.device("cuda:0"), NOWHERE, tmp_path, lambda: told.append(1))
    assert (found["state"], found["precision"]) == (state, "fp16")
    assert ("psnr_db" in found) == (state == "ready")
    assert state != "ready" or (found["largest"], len(told)) == (1, 2)
