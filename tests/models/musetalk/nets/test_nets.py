"""The face networks: the names of the real files, and the numbers of the published programs."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.musetalk.nets import bisenet, dwpose, s3fd
from models.musetalk.nets.bisenet import BiSeNet
from models.musetalk.nets.dwpose import DwPose
from models.musetalk.nets.s3fd import S3FD
from models.musetalk.weights.onnx_pose import OnnxPose
from models.types import EngineError
from tests.models.musetalk.recipe import DATA, fill, golden, keys, named_shapes, synth_frame


@pytest.mark.parametrize(
    ("net", "file"),
    [(S3FD, "s3fd_619a316812"), (DwPose, "dwpose_rtmpose_l_384x288"), (BiSeNet, "bisenet_79999_iter")],
)
def test_names_and_shapes_are_those_of_the_published_files(net: type[nn.Module], file: str) -> None:
    """The published checkpoints load without a missing, a left over or a misshapen tensor."""
    with torch.device("meta"):
        assert named_shapes(net()) == keys(file)


@pytest.mark.parametrize("module", [s3fd, dwpose, bisenet])
def test_narrow_nets_tell_their_width(module: Any) -> None:
    """A smaller network of the same kind is rebuilt from its state dict."""
    net = {s3fd: S3FD, dwpose: DwPose, bisenet: BiSeNet}[module]
    with torch.device("meta"):
        assert module.width_of(net(width=4).state_dict()) == 4
        assert module.width_of(net().state_dict()) == 64


def crafted() -> s3fd.Levels:
    """Two heads that overlap, one that doesn't, one half outside: what the golden boxes were made from."""
    told = golden("11_s3fd_recipe")
    return [(torch.from_numpy(told[f"crafted_cls{n}"]), torch.from_numpy(told[f"crafted_reg{n}"])) for n in range(6)]


def test_detector_gives_the_golden_boxes() -> None:
    """Raw outputs of all six levels, and the boxes after suppression."""
    told = golden("11_s3fd_recipe")
    net = fill(S3FD(), "s3fd", {"mbox_conf": 2.0})
    levels = net(s3fd.network_input(torch.from_numpy(told["frame_bgr"])[None]))
    for number, (scores, offsets) in enumerate(levels):
        assert relative_error(scores.numpy(), told[f"cls{number}"]) < 1e-4
        assert relative_error(offsets.numpy(), told[f"reg{number}"]) < 1e-4
    found = s3fd.suppress_overlaps(s3fd.find_candidates(levels, 0.5)[0])
    assert found.shape == told["final_boxes"].shape
    assert np.abs(found - told["final_boxes"]).max() < 1e-3


def test_unlikely_candidates_change_nothing() -> None:
    """Suppression from 0.05 up, cut at 0.5 afterwards, and suppression from 0.5 up are the same."""
    levels = crafted()
    late = s3fd.suppress_overlaps(s3fd.find_candidates(levels, 0.05)[0])
    early = s3fd.suppress_overlaps(s3fd.find_candidates(levels, 0.5)[0])
    assert np.array_equal(late[late[:, 4] > 0.5], early)
    assert np.abs(early - golden("11_s3fd_recipe")["crafted_final"]).max() < 1e-3


def test_pictures_of_a_batch_keep_their_own_boxes() -> None:
    """In a batch each picture gets what it gets alone, the empty one nothing."""
    levels = crafted()
    none = [(torch.cat([torch.zeros_like(s[:, :1]) + 9, torch.zeros_like(s[:, :1])], 1), o) for s, o in levels]
    both = [(torch.cat([a, b]), torch.cat([c, d])) for (a, c), (b, d) in zip(none, levels, strict=True)]
    first, second = s3fd.find_candidates(both, 0.5)
    assert first.shape == (0, 5)
    assert s3fd.suppress_overlaps(first).shape == (0, 5)
    assert np.array_equal(second, s3fd.find_candidates(levels, 0.5)[0])


def test_detector_work_as_published() -> None:
    """582 GFLOP for a frame of 1280x720: the network is the one that was measured."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        S3FD()(torch.empty(1, 3, 720, 1280))
    assert round(counter.get_total_flops() / 1e9) == 582


def test_mirrored_points() -> None:
    """The pairs of left and right are those of COCO-WholeBody, and a mirror's mirror is the thing itself."""
    assert list(dwpose.MIRRORED) == golden("12_dwpose_recipe")["flip_indices"].tolist()
    assert [dwpose.MIRRORED[point] for point in dwpose.MIRRORED] == list(range(dwpose.POINTS))


def test_points_without_a_score_lie_outside() -> None:
    """A point is its strongest bin; the weaker axis decides its score; none at all is (-0.5, -0.5)."""
    x, y = torch.full((1, dwpose.POINTS, 576), -1.0), torch.full((1, dwpose.POINTS, 768), -1.0)
    x[0, 3, 101], y[0, 3, 7] = 0.9, 0.4
    points, score = dwpose.locate_points((x, y))
    assert points[0, 3].tolist() == [50.5, 3.5]
    assert score[0, 3] == pytest.approx(0.4)
    assert points[0, 4].tolist() == [-0.5, -0.5]


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


def test_parser_gives_the_golden_classes() -> None:
    """From the picture to the class of each pixel; where two classes are as good as equal, either."""
    told = golden("11_bisenet_recipe")
    net = fill(BiSeNet(), "bisenet")
    crop = np.ascontiguousarray(told["image_rgb"][..., ::-1])
    inputs = bisenet.network_input(crop)
    assert np.abs(inputs[:, ::16, ::16].numpy() - told["input_sub"]).max() < 1e-6
    logits = net(inputs[None])[0, :, ::16, ::16].numpy()
    assert relative_error(logits, told["logits_sub"]) < 1e-4
    classes = bisenet.class_map(net, crop)
    assert classes.dtype == np.uint8
    clear = told["top2_margin"] >= 1e-3
    assert np.array_equal(classes[::2, ::2][clear], told["argmax"][::2, ::2][clear])


def test_parser_takes_crops_of_many_sizes() -> None:
    """Batches give what single crops give, in order."""
    net = fill(BiSeNet(4), "bisenet")
    crops = [synth_frame(n, side, side) for n, side in enumerate((60, 512, 700))]
    together = bisenet.class_maps(net, crops, batch=2)
    assert together.shape == (3, 512, 512)
    for crop, classes in zip(crops, together, strict=True):
        assert (bisenet.class_map(net, crop) != classes).mean() < 1e-3
    assert len(np.unique(together)) > 3


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.sqrt((wanted.astype(np.float64) ** 2).mean()))
