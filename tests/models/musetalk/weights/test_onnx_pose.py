"""DWPose from its ONNX file: the same numbers as the module, and what is said of bad files."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.musetalk.nets import dwpose
from models.musetalk.nets.dwpose import DwPose
from models.musetalk.weights.onnx_pose import OnnxPose
from models.types import EngineError
from tests.models.musetalk.recipe import DATA, fill, relative_error, synth_frame


@pytest.fixture
def tiny_onnx(tmp_path: Path) -> Path:
    """A DWPose of width 2 as ONNX, exported from recipe weights whose last 20 bits are 0."""
    path = tmp_path / "dw-ll_ucoco_384.onnx"
    path.write_bytes(gzip.decompress((DATA / "dwpose_tiny.onnx.gz").read_bytes()))
    return path


def test_onnx_file_gives_what_the_module_gives(tiny_onnx: Path) -> None:
    """The same weights in either form, the same vectors."""
    net = fill(DwPose(2), "pose", {"cls_x": 3, "cls_y": 3})
    for parameter in net.parameters():
        bits = parameter.data.numpy().view(np.uint32) & 0xFFF00000
        parameter.data = torch.from_numpy(bits.view(np.float32))
    crop = torch.from_numpy(np.stack([synth_frame(n, 384, 288) for n in (1, 2)]))
    inputs = dwpose.network_input(crop)
    for told, wanted in zip(OnnxPose(tiny_onnx)(inputs), net(inputs), strict=True):
        assert told.shape == wanted.shape
        assert relative_error(told.numpy(), wanted.numpy()) < 1e-4


@pytest.mark.parametrize("keep", [0, 5, 100_000])
def test_damaged_onnx_file_is_named(tiny_onnx: Path, keep: int) -> None:
    """A file that is empty or cut off, and the command that mends it."""
    tiny_onnx.write_bytes(tiny_onnx.read_bytes()[:keep])
    with pytest.raises(EngineError) as failed:
        OnnxPose(tiny_onnx)
    assert failed.value.code == "weights_damaged"
    assert tiny_onnx.name in failed.value.message
    assert "musedrop models fetch" in failed.value.hint


def test_another_net_in_the_onnx_file_is_refused(tiny_onnx: Path) -> None:
    """A net with other inputs is named before any frame goes in."""
    narrow = tiny_onnx.read_bytes().replace(b"\x08\x80\x03\x0a\x03\x08\xa0\x02", b"\x08\x80\x03\x0a\x03\x08\x80\x02")
    assert narrow != tiny_onnx.read_bytes()
    tiny_onnx.write_bytes(narrow)
    with pytest.raises(EngineError, match="another net"):
        OnnxPose(tiny_onnx)


def test_without_onnx_runtime(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file needs a library that is not always there; the error says what to do."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError) as failed:
        OnnxPose(tiny_onnx)
    assert failed.value.code == "engine_unavailable"
    assert "pip install onnxruntime" in failed.value.hint
