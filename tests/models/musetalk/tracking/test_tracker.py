"""One face tracked through a video: which one, across cuts, gaps and landmarks that are off the face."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.arrays import F64, U8
from models.musetalk.nets import s3fd
from models.musetalk.tracking.boxes import plan_boxes
from models.musetalk.tracking.detection import REDUCED_SIDE, FaceNets
from models.musetalk.tracking.regions import Region
from models.musetalk.tracking.tracker import FaceTrack, FaceTracker, ReferenceTracker
from tests.models.musetalk.toy_nets import disc_frame, toy_dwpose
from tests.models.musetalk.tracking.discs import CPU, DiscDetector, exact_nets, square


def track_frames(nets: FaceNets, frames: list[np.ndarray], face: Any = "largest") -> FaceTrack:
    tracker = FaceTracker(nets, face)
    for start in range(0, len(frames), 4):
        tracker.add_frames(frames[start : start + 4])
    return tracker.finish()


def middles(found: FaceTrack) -> np.ndarray:
    return (found.detected[:, :2] + found.detected[:, 2:4]) / 2


def test_a_head_is_followed(nets: FaceNets) -> None:
    """Detections and landmarks of each frame, in step; a frame without a face holds its place."""
    frames = [disc_frame(448, 330, (150 + 8 * n, 160, 120)) for n in range(10)]
    frames[6] = disc_frame(448, 330)
    found = track_frames(nets, frames)
    assert np.flatnonzero(np.isnan(found.detected[:, 0])).tolist() == [6]
    assert np.flatnonzero(np.isnan(found.landmarks[:, 0, 0])).tolist() == [6]
    seen = np.delete(np.arange(10), 6)
    assert np.abs(middles(found)[seen, 0] - (150 + 8 * seen)).max() < 30
    assert np.abs(found.landmarks[seen, 29, 0] - (150 + 8 * seen)).max() < 30
    assert (found.cuts, found.max_faces, found.has_face) == ((), 1, True)
    track = plan_boxes(found.landmarks, found.detected, (448, 330), cuts=found.cuts)
    assert track.gaps == ((6, 7),)


def test_one_of_several_faces() -> None:
    """By number from left to right, or the largest; its landmarks are on it and not between the people."""
    frames = [disc_frame(640, 360, (150, 180, 100), (470 + 3 * n, 170, 130)) for n in range(6)]
    for face, x in (("largest", 470), (1, 470), (0, 150)):
        found = track_frames(exact_nets()[0], frames, face)
        assert found.max_faces == 2
        assert np.abs(middles(found)[0] - (x, 180 if x == 150 else 170)).max() < 1
        assert np.abs(found.landmarks[:, 29] - middles(found)).max() < 30


def test_a_face_that_is_not_there() -> None:
    """Number 2 of two faces is never seen; the caller learns how many there are."""
    found = track_frames(exact_nets()[0], [disc_frame(640, 360, (150, 180, 100), (470, 170, 130))] * 3, 2)
    assert (found.has_face, found.max_faces) == (False, 2)
    assert not track_frames(exact_nets()[0], [disc_frame(64, 36)] * 3).has_face


def test_after_a_cut_the_wish_counts_anew() -> None:
    """The face of the first shot is not looked for in the second one."""
    frames = [disc_frame(640, 360, (150, 180, 130), (470, 170, 100))] * 4
    frames += [disc_frame(640, 360, (150, 180, 100), (470, 170, 130), seed=9)] * 4
    found = track_frames(exact_nets()[0], frames)
    assert found.cuts == (4,)
    assert np.abs(middles(found)[:, 0] - np.repeat([150, 470], 4)).max() < 1


class LostPose(nn.Module):
    """A pose net that is lost in whole frames: its points lie in the corner unless much is red."""

    def __init__(self) -> None:
        super().__init__()
        self.toy = toy_dwpose()

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self.toy(inputs)
        red = ((inputs[:, 0] - inputs[:, 1]) > 2).float().mean((1, 2)) > 0.03
        return x * red.view(-1, 1, 1), y * red.view(-1, 1, 1)


class CountingNets(FaceNets):
    """Notes how many frames each search for landmarks has."""

    def __init__(self, *nets: Any) -> None:
        super().__init__(*nets)
        self.calls: list[int] = []

    def find_landmarks(self, frames: Sequence[U8], regions: Sequence[Region] | None = None) -> F64:
        self.calls.append(len(frames))
        return super().find_landmarks(frames, regions)


def test_landmarks_astray_are_looked_for_nearby() -> None:
    """Where the whole frame puts no landmarks on the face, the region about it does, and keeps doing so."""
    frames = [disc_frame(1280, 720, (300, 250, 120))] * 8
    found = track_frames(FaceNets(DiscDetector(), LostPose(), CPU), frames)
    assert np.abs(found.landmarks[:, 29] - (300, 250)).max() < 30
    nets = CountingNets(DiscDetector(), LostPose(), CPU)
    track_frames(nets, frames)
    assert nets.calls == [4, 4, 4]


def test_without_landmarks_the_box_is_found_at_full_size() -> None:
    """Then the detector's box is all there is, and is as exact as the reference's."""
    detector = DiscDetector()
    track_frames(FaceNets(detector, toy_dwpose().requires_grad_(False), CPU), [disc_frame(1280, 720, (300, 250, 120))])
    before = len(detector.looked_at)
    found = track_frames(FaceNets(detector, blind_dwpose(), CPU), [disc_frame(1280, 720, (300, 250, 120))])
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


def blind_dwpose() -> Any:
    """Return a pose net whose points all lie in the corner."""
    net: Any = toy_dwpose()
    net.head.mlp[1].weight.zero_()
    return net


@pytest.mark.parametrize("pose", [toy_dwpose, blind_dwpose])
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_boxes_do_not_depend_on_the_size_of_the_search(size: tuple[int, int], pose: Callable[[], Any]) -> None:
    """The detector may be off in a small picture: landmarks, or a second look, give the box of a full search."""
    scale = size[0] / 1280
    discs = [(scale * x, scale * y, scale * side) for x, y, side in DISCS]
    for disc in discs:
        frames = [disc_frame(*size, (disc[0] + 3 * n, disc[1], disc[2])) for n in range(2)]
        nets = UnsteadyDetector(), pose(), CPU
        full, small = track_frames(FullSize(*nets), frames), track_frames(FaceNets(*nets), frames)
        tracks = [plan_boxes(found.landmarks, found.detected, size) for found in (full, small)]
        assert [track.seen.all() for track in tracks] == [True, True]
        assert np.abs(tracks[0].boxes - tracks[1].boxes).max() <= 1, disc
    small_boxes = FaceNets(*nets).detect(frames)
    assert np.abs(np.stack(small_boxes)[:, 0, :4] - full.detected[:, :4]).max() > 1


def test_reference_takes_the_best_face_of_each_frame() -> None:
    """At full size, landmarks in the whole frame, no memory of the frame before."""
    nets, detector = exact_nets()
    tracker = ReferenceTracker(nets)
    tracker.add_frames([disc_frame(640, 360, (150, 180, 100), (470, 170, 130)), disc_frame(640, 360)])
    tracker.add_frames([disc_frame(640, 360, (150, 180, 130), (470, 170, 100))])
    found = tracker.finish()
    assert np.abs(middles(found)[[0, 2], 0] - (470, 150)).max() < 1
    assert np.isnan(found.detected[1]).all()
    assert abs(found.landmarks[0, 29, 0] - 310) < 60
    assert {max(shape) for shape in detector.looked_at} == {640}


def test_frames_are_not_kept(nets: FaceNets) -> None:
    """Memory doesn't grow with the video: what was fed is gone."""
    tracker = FaceTracker(nets)
    frames = [disc_frame(320, 240, (160, 120, 120)) for _ in range(3)]
    watched = [weakref.ref(frame) for frame in frames]
    tracker.add_frames(frames)
    del frames
    gc.collect()
    assert [ref() for ref in watched] == [None] * 3
