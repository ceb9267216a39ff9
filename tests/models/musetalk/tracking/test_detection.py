"""Faces found in frames, pointed out, followed and cut out."""

from __future__ import annotations

import gc
import gzip
import math
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.musetalk.nets import s3fd
from models.musetalk.nets.dwpose import DwPose
from models.musetalk.nets.s3fd import S3FD
from models.musetalk.tracking.boxes import plan_boxes
from models.musetalk.tracking.detection import REDUCED_SIDE, FaceNets, crop_clipped, crop_padded, face_region
from models.musetalk.tracking.shots import CutDetector
from models.musetalk.tracking.tracker import FaceTrack, FaceTracker, ReferenceTracker
from models.musetalk.weights.onnx_pose import OnnxPose
from tests.models.musetalk.ramp_nets import ramp_frame, ramp_s3fd
from tests.models.musetalk.recipe import DATA, fill, golden, synth_frame
from tests.models.musetalk.toy_nets import disc_frame, toy_dwpose, toy_s3fd

CPU = torch.device("cpu")
TIES = {53, 89}
"""Points for which two bins are equal to the last bits of float32 in the golden run: either is right."""


class DiscDetector(nn.Module):
    """Answers like S3FD, exactly at any scale: the squares about red discs of 16 pixels of its input or more."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at: list[tuple[int, ...]] = []

    def forward(self, inputs: Tensor) -> s3fd.Levels:
        self.looked_at.append(tuple(inputs.shape))
        count, _, height, width = inputs.shape
        sizes = [(height // (4 << n) + 1, width // (4 << n) + 1) for n in range(6)]
        levels = [(torch.zeros(count, 2, *size), torch.zeros(count, 4, *size)) for size in sizes]
        for scores, _ in levels:
            scores[:, 0] = 9
        for number, picture in enumerate(inputs):
            for x, y, side in discs_in(picture + torch.tensor(s3fd.MEAN_SUBTRACTED).view(3, 1, 1)):
                tell(levels, number, x, y, side)
        return levels


def discs_in(rgb: Tensor) -> list[tuple[float, float, float]]:
    """Middle and diameter of each red disc, from its weight, to a fraction of a pixel."""
    red = ((rgb[0] - rgb[1] - rgb[2]) / 175).clamp(0, 1).numpy()
    _, labels = cv2.connectedComponents((red > 0.02).astype(np.uint8))
    found = []
    for label in range(1, labels.max() + 1):
        part = np.where(labels == label, red, 0)
        y, x = np.indices(part.shape)
        weight = part.sum()
        side = 2 * math.sqrt(weight / math.pi)
        if side >= 16:
            found.append(((x * part).sum() / weight + 0.5, (y * part).sum() / weight + 0.5, side))
    return found


def tell(levels: s3fd.Levels, number: int, x: float, y: float, side: float) -> None:
    """Write a square box into the level whose priors are of about its size; a larger one scores higher."""
    level = min(range(6), key=lambda n: abs(math.log(side / (16 << n))))
    stride, prior = 4 << level, 16 << level
    scores, offsets = levels[level]
    row, column = int(y // stride), int(x // stride)
    offset = [(x / stride - column - 0.5) * 2.5, (y / stride - row - 0.5) * 2.5]
    scores[number, :, row, column] = torch.tensor([0.0, 3 + side / 1000])
    offsets[number, :, row, column] = torch.tensor([*offset, *[math.log(side / prior) * 5] * 2])


def square(x: float, y: float, side: float) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


@pytest.fixture
def nets() -> FaceNets:
    """The toy networks: a red disc of 100 to 130 px is a face, wherever it is."""
    return FaceNets(toy_s3fd(), toy_dwpose(), CPU)


def exact_nets() -> tuple[FaceNets, DiscDetector]:
    detector = DiscDetector()
    return FaceNets(detector, toy_dwpose(), CPU), detector


# finding -------------------------------------------------------------------------------------------------------------


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
        (full,), (small,) = nets.detect([frame], reference=True), nets._search_all([frame], REDUCED_SIDE)
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


# pointing out --------------------------------------------------------------------------------------------------------


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


def test_landmarks_in_a_region(nets: FaceNets) -> None:
    """The pose net looks at the people it is shown: in the whole frame between them, in a region at one."""
    frame = disc_frame(640, 360, (160, 180, 110), (480, 170, 110))
    whole, left, right = (
        nets.find_landmarks([frame], regions)[0]
        for regions in (
            None,
            [face_region(np.array(square(160, 180, 110)))],
            [face_region(np.array(square(480, 170, 110)))],
        )
    )
    assert abs(whole[29, 0] - 320) < 40
    assert np.abs(left[29] - (160, 180)).max() < 25
    assert np.abs(right[29] - (480, 170)).max() < 25
    assert np.ptp(left[:, 0]) < np.ptp(whole[:, 0])


def test_no_landmarks_in_no_frames(nets: FaceNets) -> None:
    """An empty batch is an answer, not an error."""
    assert nets.find_landmarks([]).shape == (0, 68, 2)


# following -----------------------------------------------------------------------------------------------------------


def follow(nets: FaceNets, frames: list[np.ndarray], face: Any = "largest") -> FaceTrack:
    follower = FaceTracker(nets, face)
    for start in range(0, len(frames), 4):
        follower.add_frames(frames[start : start + 4])
    return follower.finish()


def middles(found: FaceTrack) -> np.ndarray:
    return (found.detected[:, :2] + found.detected[:, 2:4]) / 2


def test_a_head_is_followed(nets: FaceNets) -> None:
    """Detections and landmarks of each frame, in step; a frame without a face holds its place."""
    frames = [disc_frame(448, 330, (150 + 8 * n, 160, 120)) for n in range(10)]
    frames[6] = disc_frame(448, 330)
    found = follow(nets, frames)
    assert np.flatnonzero(np.isnan(found.detected[:, 0])).tolist() == [6]
    assert np.flatnonzero(np.isnan(found.landmarks[:, 0, 0])).tolist() == [6]
    seen = np.delete(np.arange(10), 6)
    assert np.abs(middles(found)[seen, 0] - (150 + 8 * seen)).max() < 30
    assert np.abs(found.landmarks[seen, 29, 0] - (150 + 8 * seen)).max() < 30
    assert (found.cuts, found.most, found.seen) == ((), 1, True)
    track = plan_boxes(found.landmarks, found.detected, (448, 330), cuts=found.cuts)
    assert track.gaps == ((6, 7),)


def test_one_of_several_faces() -> None:
    """By number from left to right, or the largest; its landmarks are on it and not between the people."""
    frames = [disc_frame(640, 360, (150, 180, 100), (470 + 3 * n, 170, 130)) for n in range(6)]
    for face, x in (("largest", 470), (1, 470), (0, 150)):
        found = follow(exact_nets()[0], frames, face)
        assert found.most == 2
        assert np.abs(middles(found)[0] - (x, 180 if x == 150 else 170)).max() < 1
        assert np.abs(found.landmarks[:, 29] - middles(found)).max() < 30


def test_a_face_that_is_not_there() -> None:
    """Number 2 of two faces is never seen; the caller learns how many there are."""
    found = follow(exact_nets()[0], [disc_frame(640, 360, (150, 180, 100), (470, 170, 130))] * 3, 2)
    assert (found.seen, found.most) == (False, 2)
    assert not follow(exact_nets()[0], [disc_frame(64, 36)] * 3).seen


def test_after_a_cut_the_wish_counts_anew() -> None:
    """The face of the first shot is not looked for in the second one."""
    frames = [disc_frame(640, 360, (150, 180, 130), (470, 170, 100))] * 4
    frames += [disc_frame(640, 360, (150, 180, 100), (470, 170, 130), seed=9)] * 4
    found = follow(exact_nets()[0], frames)
    assert found.cuts == (4,)
    assert np.abs(middles(found)[:, 0] - np.repeat([150, 470], 4)).max() < 1


class LostPose(nn.Module):
    """A pose net that sees nobody in whole frames: its points are in the corner unless the picture is mostly red."""

    def __init__(self) -> None:
        super().__init__()
        self.toy = toy_dwpose()

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self.toy(inputs)
        red = ((inputs[:, 0] - inputs[:, 1]) > 2).float().mean((1, 2)) > 0.03
        return x * red.view(-1, 1, 1), y * red.view(-1, 1, 1)


def test_landmarks_astray_are_looked_for_nearby() -> None:
    """Where the whole frame puts no landmarks on the face, the region about it does, and keeps doing so."""
    frames = [disc_frame(1280, 720, (300, 250, 120))] * 8
    found = follow(FaceNets(DiscDetector(), LostPose(), CPU), frames)
    assert np.abs(found.landmarks[:, 29] - (300, 250)).max() < 30
    calls: list[int] = []
    nets = FaceNets(DiscDetector(), LostPose(), CPU)
    look = nets.find_landmarks
    nets.find_landmarks = lambda shown, regions=None: (calls.append(len(shown)), look(shown, regions))[1]
    follow(nets, frames)
    assert calls == [4, 4, 4]


def test_without_landmarks_the_box_is_found_at_full_size() -> None:
    """Then the detector's box is all there is, and is as exact as the reference's."""
    detector = DiscDetector()
    follow(FaceNets(detector, toy_dwpose().requires_grad_(False), CPU), [disc_frame(1280, 720, (300, 250, 120))])
    before = len(detector.looked_at)
    blind = toy_dwpose()
    blind.head.mlp[1].weight.zero_()
    found = follow(FaceNets(detector, blind, CPU), [disc_frame(1280, 720, (300, 250, 120))])
    assert [max(shape) for shape in detector.looked_at[before:]] == [REDUCED_SIDE, 1280]
    box = plan_boxes(found.landmarks, found.detected, (1280, 720)).boxes[0]
    assert np.abs(box - square(300, 250, 120)).max() <= 1


class UnsteadyDetector(DiscDetector):
    """As a trained one is: in a small picture its boxes are a few pixels of that picture off, each time others."""

    def forward(self, inputs: Tensor) -> s3fd.Levels:
        levels = super().forward(inputs)
        if max(inputs.shape) <= REDUCED_SIDE:
            random = torch.Generator().manual_seed(len(self.looked_at))
            for _, offsets in levels:
                offsets.add_(torch.rand(offsets.shape, generator=random) - 0.5)
        return levels


class FullSize(FaceNets):
    """Looks for faces as the reference does, in every frame at its full size."""

    def detect(self, frames: Sequence[np.ndarray], *, reference: bool = False) -> list[np.ndarray]:  # noqa: ARG002
        return super().detect(frames, reference=True)


DISCS = ((360, 250, 150), (655.3, 371.7, 217.4), (930.5, 420.2, 330))


def blind_dwpose() -> DwPose:
    """Sees nobody: all its points lie in the corner."""
    net = toy_dwpose()
    net.head.mlp[1].weight.zero_()
    return net


@pytest.mark.parametrize("pose", [toy_dwpose, blind_dwpose])
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_painted_boxes_do_not_depend_on_the_size_of_the_search(size: tuple[int, int], pose: Callable[[], Any]) -> None:
    """The detector may be off in a small picture: landmarks, or a second look, give the box of a full search."""
    scale = size[0] / 1280
    discs = [(scale * x, scale * y, scale * side) for x, y, side in DISCS]
    for disc in discs:
        frames = [disc_frame(*size, (disc[0] + 3 * n, disc[1], disc[2])) for n in range(2)]
        nets = UnsteadyDetector(), pose(), CPU
        full, small = follow(FullSize(*nets), frames), follow(FaceNets(*nets), frames)
        tracks = [plan_boxes(found.landmarks, found.detected, size) for found in (full, small)]
        assert [track.seen.all() for track in tracks] == [True, True]
        assert np.abs(tracks[0].boxes - tracks[1].boxes).max() <= 1, disc
    small_boxes = FaceNets(*nets).detect(frames)
    assert np.abs(np.stack(small_boxes)[:, 0, :4] - full.detected[:, :4]).max() > 1


def test_reference_takes_the_best_face_of_each_frame() -> None:
    """At full size, landmarks in the whole frame, no memory of the frame before."""
    nets, detector = exact_nets()
    follower = ReferenceTracker(nets)
    follower.add_frames([disc_frame(640, 360, (150, 180, 100), (470, 170, 130)), disc_frame(640, 360)])
    follower.add_frames([disc_frame(640, 360, (150, 180, 130), (470, 170, 100))])
    found = follower.finish()
    assert np.abs(middles(found)[[0, 2], 0] - (470, 150)).max() < 1
    assert np.isnan(found.detected[1]).all()
    assert abs(found.landmarks[0, 29, 0] - 310) < 60
    assert {max(shape) for shape in detector.looked_at} == {640}


def test_frames_are_not_kept(nets: FaceNets) -> None:
    """Memory doesn't grow with the video: what was fed is gone."""
    follower = FaceTracker(nets)
    frames = [disc_frame(320, 240, (160, 120, 120)) for _ in range(3)]
    watched = [weakref.ref(frame) for frame in frames]
    follower.add_frames(frames)
    del frames
    gc.collect()
    assert [ref() for ref in watched] == [None] * 3


# cuts ----------------------------------------------------------------------------------------------------------------


def cuts_in(frames: list[np.ndarray]) -> list[int]:
    finder = CutDetector()
    return [number for number, frame in enumerate(frames) if finder.add_frame(frame)]


def panned(offset: int) -> np.ndarray:
    wide = disc_frame(2400, 240, (700, 120, 90), (1400, 100, 120))
    return np.ascontiguousarray(wide[:, offset : offset + 320])


def test_cuts_are_found_in_the_picture() -> None:
    """From one picture to another, and to and from a picture without any pattern."""
    one, other = disc_frame(320, 240, (160, 120, 110)), disc_frame(320, 240, (150, 110, 110), seed=8)
    assert cuts_in([one] * 5 + [other] * 5 + [one] * 2) == [5, 10]
    assert cuts_in([one] * 3 + [np.zeros_like(one)] * 2 + [one] * 3) == [3, 5]


def test_motion_and_light_are_no_cuts() -> None:
    """A head that moves, a fast pan, light that jumps, noise, and a fade are not cuts."""
    still = disc_frame(320, 240, (160, 120, 110))
    assert cuts_in([disc_frame(320, 240, (100 + 12 * n, 120, 110)) for n in range(10)]) == []
    assert cuts_in([panned(40 * n) for n in range(40)]) == []
    assert cuts_in([still, cv2.convertScaleAbs(still, alpha=1.2, beta=35), still, still]) == []
    assert cuts_in([cv2.convertScaleAbs(still, alpha=1 - n / 25) for n in range(25)]) == []
    random = np.random.default_rng(0)
    assert cuts_in([cv2.add(still, random.integers(0, 40, still.shape).astype(np.uint8)) for _ in range(10)]) == []


# cutting out ---------------------------------------------------------------------------------------------------------


def test_a_crop_is_the_golden_one() -> None:
    """Lanczos over eight pixels, to the bit, whatever the shape of the box."""
    crop, wanted = golden("03_crop")["crop_bgr"], golden("03_vae_tiny")["resized_lanczos4_bgr"]
    frame = cv2.copyMakeBorder(crop, 7, 3, 5, 9, cv2.BORDER_CONSTANT, value=(255, 0, 255))
    box = (5, 7, 5 + crop.shape[1], 7 + crop.shape[0])
    assert np.array_equal(crop_padded(frame, box), wanted)
    assert np.array_equal(crop_clipped(frame, box), wanted)


def test_crops_inside_the_frame_are_the_same_both_ways() -> None:
    """To the bit."""
    frame = synth_frame(3, 241, 321)
    assert np.array_equal(crop_clipped(frame, (40, 20, 251, 207)), crop_padded(frame, (40, 20, 251, 207)))
    assert crop_padded(frame, np.array([0, 0, 321, 241])).shape == (256, 256, 3)


@pytest.mark.parametrize("box", [(-60, 40, 90, 200), (250, 40, 400, 200), (100, -50, 260, 110), (100, 150, 260, 300)])
def test_crops_beyond_an_edge_keep_their_proportions(box: tuple[int, int, int, int]) -> None:
    """A box that reaches outside shows the inside where it belongs, at its scale, and the edge's pixels beyond."""
    frame = synth_frame(3, 241, 321)
    wide = cv2.copyMakeBorder(frame, 100, 100, 100, 100, cv2.BORDER_REPLICATE)
    assert np.array_equal(crop_padded(frame, box), crop_clipped(wide, [edge + 100 for edge in box]))
