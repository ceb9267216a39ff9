"""Faces found in frames, and their landmarks."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.musetalk.nets.dwpose import DwPose
from models.musetalk.nets.s3fd import S3FD
from models.musetalk.tracking.detection import REDUCED_SIDE, FaceNets
from models.musetalk.weights.onnx_pose import OnnxPose
from tests.models.musetalk.ramp_nets import ramp_frame, ramp_s3fd
from tests.models.musetalk.recipe import DATA, fill, golden, synth_frame
from tests.models.musetalk.toy_nets import disc_frame, toy_dwpose, toy_s3fd
from tests.models.musetalk.tracking.discs import CPU, exact_nets, square

TIES = {53, 89}
"""Points for which two bins are equal to the last bits of float32 in the golden run: either is right."""


def test_faces_are_the_golden_ones() -> None:
    """The published detector's boxes in the frame as it is."""
    told = golden("11_s3fd_recipe")
    nets = FaceNets(fill(S3FD(), "s3fd", {"mbox_conf": 2.0}), toy_dwpose(), CPU)
    found = nets.detect([told["frame_bgr"]], reference=True)[0]
    assert found.shape == told["final_boxes"].shape
    assert np.abs(found - told["final_boxes"]).max() < 1e-3


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (1279, 717), (720, 1280)])
def test_reduced_frames_give_the_same_boxes(size: tuple[int, int]) -> None:
    """With a detector that is exact at any scale: within a pixel of those in the frame at its full size."""
    nets, detector = exact_nets()
    frame = disc_frame(*size, (301.4, 250.2, 130.0), (560.7, 420.5, 220.0))
    (full,), (small,) = nets.detect([frame], reference=True), nets.detect([frame], reference=False)
    assert full.shape == small.shape == (2, 5)
    assert np.abs(full[0, :4] - square(560.7, 420.5, 220.0)).max() < 1
    assert np.abs(full[:, :4] - small[:, :4]).max() < 1
    assert [shape[:1] + shape[2:] for shape in detector.looked_at[:1]] == [(1, size[1], size[0])]
    assert max(detector.looked_at[1]) == REDUCED_SIDE


@pytest.mark.parametrize(
    ("size", "side"), [((1280, 720), 110), ((1280, 720), 180), ((1920, 1080), 160), ((1920, 1080), 200)]
)
def test_the_published_network_finds_the_same_boxes_in_reduced_frames(size: tuple[int, int], side: int) -> None:
    """Through its convolutions, pools and priors, with weights by hand: two levels, in both within a pixel of truth."""
    nets = FaceNets(ramp_s3fd(side, side * REDUCED_SIDE / size[0]), toy_dwpose(), CPU)
    for x, y in ((300.2, 250.7), (641.5, 333.3), (900.8, 500.1), (size[0] - side / 2 - 3.3, size[1] - side / 2 - 1.2)):
        frame = ramp_frame(*size, x, y, side)
        (full,), (small,) = nets.detect([frame], reference=True), nets._search_reduced([frame], REDUCED_SIDE)
        assert full.shape == small.shape == (1, 5)
        assert np.abs(full[0, :4] - square(x, y, side)).max() < 0.6
        assert np.abs(full[0, :4] - small[0, :4]).max() < 1


@pytest.mark.parametrize(("size", "least"), [((1280, 720), 8), ((1920, 1080), 16)])
def test_reduced_frames_are_an_eighth_of_the_work(size: tuple[int, int], least: int) -> None:
    """Counted on the published network, multiplication by multiplication."""
    scale = REDUCED_SIDE / max(size)
    small = (round(size[0] * scale), round(size[1] * scale))
    assert work(*size) / work(*small) >= least


def work(width: int, height: int) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        S3FD()(torch.empty(1, 3, height, width))
    return int(counter.get_total_flops())


def test_a_small_face_is_found_at_full_size() -> None:
    """What a reduced frame doesn't show is looked for in the full one before the frame is called empty."""
    nets, detector = exact_nets()
    frames = [disc_frame(1280, 720, (640, 200, 30)), disc_frame(1280, 720), disc_frame(1280, 720, (640, 200, 90))]
    found = nets.detect(frames, reference=False)
    assert [len(faces) for faces in found] == [1, 0, 1]
    assert np.abs(found[0][0, :4] - square(640, 200, 30)).max() < 1
    assert [shape[0] for shape in detector.looked_at] == [3, 1, 1]
    assert [max(shape) for shape in detector.looked_at] == [REDUCED_SIDE, 1280, 1280]


def test_huge_frames_are_never_searched_at_full_size() -> None:
    """Outside of the reference's way a frame of 8K is looked at with 1920 pixels a side at most."""
    nets, detector = exact_nets()
    assert len(nets.detect([np.zeros((4320, 7680, 3), np.uint8)], reference=False)[0]) == 0
    assert [max(shape) for shape in detector.looked_at] == [REDUCED_SIDE, 1920]


def test_frames_of_different_sizes() -> None:
    """Each frame has its own boxes, in order, however sizes are mixed; the smallest frames do no harm."""
    nets, _ = exact_nets()
    sizes = [(640, 360), (640, 360), (321, 241), (641, 361), (1, 1)]
    frames = [disc_frame(*size, (size[0] / 2, size[1] / 2, 60)) for size in sizes]
    found = nets.detect(frames, reference=False)
    assert [len(faces) for faces in found] == [1, 1, 1, 1, 0]
    assert np.abs(found[3][0, :4] - square(320.5, 180.5, 60)).max() < 1
    assert nets.detect([], reference=False) == []


def test_landmarks_are_the_golden_ones() -> None:
    """Warp, net, flip test and decoding, in both orientations, truncated as the rule does it."""
    told = golden("12_dwpose_recipe")
    nets = FaceNets(toy_s3fd(), fill(DwPose(), "pose", {"cls_x": 3, "cls_y": 3}), CPU)
    ways = ("landscape", "portrait")
    frames = [synth_frame(4, *told[f"{way}_hw"].tolist()) for way in ways]
    clear = [number for number in range(68) if number + 23 not in TIES]
    for way, points in zip(ways, nets.find_landmarks(frames), strict=True):
        assert np.abs(points[clear] - told[f"{way}_keypoints133"][23:91][clear]).max() < 1e-6
        assert np.array_equal(points.astype(np.int32)[clear], told[f"{way}_face68_int32"][clear])


def test_landmarks_from_the_onnx_file(tmp_path: Path) -> None:
    """Where only the ONNX file is there, the points are those of the module with the same weights."""
    path = tmp_path / "dw-ll_ucoco_384.onnx"
    path.write_bytes(gzip.decompress((DATA / "dwpose_tiny.onnx.gz").read_bytes()))
    net = fill(DwPose(2), "pose", {"cls_x": 3, "cls_y": 3})
    for parameter in net.parameters():
        parameter.data = torch.from_numpy((parameter.data.numpy().view(np.uint32) & 0xFFF00000).view(np.float32))
    frames = [synth_frame(number, 240, 321) for number in (1, 2)]
    found = [FaceNets(toy_s3fd(), pose, CPU).find_landmarks(frames) for pose in (OnnxPose(path), net)]
    assert (np.abs(found[0] - found[1]) > 1e-6).mean() < 0.02
    assert np.ptp(found[0]) > 50


def test_no_landmarks_in_no_frames(nets: FaceNets) -> None:
    """An empty batch is an answer, not an error."""
    assert nets.find_landmarks([]).shape == (0, 68, 2)
