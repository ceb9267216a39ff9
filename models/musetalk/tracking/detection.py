"""Faces in frames: found by S3FD, and their landmarks by DWPose, as MuseTalk calls both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.arrays import F32, F64, U8, Floats
from models.musetalk.geometry import Size
from models.musetalk.nets import dwpose, s3fd
from models.musetalk.nets.uploading import to_device
from models.musetalk.tracking.regions import Region, crop_region, to_frame_pixels, whole_frame_region

REDUCED_SIDE = 448
"""Longest side of a frame as the detector sees it: at 1280x720 an eighth of the work, at 1920x1080
an eighteenth."""
LARGEST_SIDE = 1920
"""Longest side of a frame that is searched again at full size, outside of the reference's way."""
MIN_SCORE = 0.5
FACE_POINTS = slice(23, 91)
"""The face's 68 of the pose net's 133 points."""

_FORWARD_PIXELS = 1_000_000
_POSE_BATCH = 8


class FaceNets:
    """The detector and the pose net on one device.

    Frames are (h, w, 3) uint8 BGR of any size, odd ones too.
    """

    def __init__(
        self, detector: nn.Module, pose: Callable[[Tensor], tuple[Tensor, Tensor]], device: torch.device
    ) -> None:
        """Take both networks, float32, in evaluation mode.

        `detector` is an S3FD on `device`, `pose` a DwPose there or an OnnxPose.
        """
        self._detector, self._pose, self._device = detector, pose, device

    def detect(self, frames: Sequence[U8], *, reference: bool = False) -> list[F32]:
        """Return the faces of each frame, best first: (k, 5) float32 x1, y1, x2, y2, score.

        Boxes are in pixels of the frame.

        In the reference's way, frames are searched one by one at full size. Otherwise small copies
        are, in batches, and a frame at full size only where its small copy shows no face.
        """
        if reference:
            return [self._search([frame], 1.0)[0] for frame in frames]
        found = self._search_reduced(frames, REDUCED_SIDE)
        for number, frame in enumerate(frames):
            if not len(found[number]) and max(frame.shape) > REDUCED_SIDE:
                found[number] = self._search_reduced([frame], LARGEST_SIDE)[0]
        return found

    def find_landmarks(self, frames: Sequence[U8], regions: Sequence[Region] | None = None) -> F64:
        """Return the landmarks of one face in each frame, (n, 68, 2) float64 x, y in pixels.

        The order is that of the 68 points of iBUG. `regions` are what the pose net sees, by
        default whole frames.
        """
        seen = regions or [whole_frame_region(frame.shape[1], frame.shape[0]) for frame in frames]
        landmarks = np.empty((len(frames), 68, 2))
        for numbers in split_batches(range(len(frames)), _POSE_BATCH):
            crops = np.stack([crop_region(frames[number], seen[number]) for number in numbers])
            points = self._locate_points(to_device(crops, self._device))
            for number, point in zip(numbers, points, strict=True):
                landmarks[number] = to_frame_pixels(point[FACE_POINTS], seen[number])
        return landmarks

    def _search_reduced(self, frames: Sequence[U8], side: int) -> list[F32]:
        """Search frames of any size, scaled down to `side` pixels at most."""
        found: list[F32] = []
        for numbers in group_by_size(frames):
            height, width = frames[numbers[0]].shape[:2]
            scale = min(1.0, side / max(width, height))
            batch_size = max(1, int(_FORWARD_PIXELS / (scale * width * scale * height)))
            for batch in split_batches(numbers, batch_size):
                found += self._search([frames[number] for number in batch], scale)
        return found

    @torch.inference_mode()
    def _search(self, frames: Sequence[U8], scale: float) -> list[F32]:
        """Search frames of one size in one batch."""
        height, width = frames[0].shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        batch = to_device(np.stack([resize(frame, small) for frame in frames]), self._device)
        levels = self._detector(s3fd.network_input(batch))
        back = np.array([width / small[0], height / small[1]] * 2 + [1.0], np.float32)
        return [s3fd.suppress_overlaps(faces) * back for faces in s3fd.find_candidates(levels, MIN_SCORE)]

    @torch.inference_mode()
    def _locate_points(self, crops: Tensor) -> Floats:
        """Return all points of (n, 384, 288, 3) crops, (n, 133, 2), with the flip test."""
        inputs = dwpose.network_input(crops)
        x, y = self._pose(torch.cat([inputs, inputs.flip(-1)]))
        count = len(inputs)
        points, _ = dwpose.locate_points(dwpose.average_flip((x[:count], y[:count]), (x[count:], y[count:])))
        return np.asarray(points.cpu().numpy())


def split_batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield the numbers in batches of `size`, the last one smaller."""
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def group_by_size(frames: Sequence[U8]) -> Iterator[list[int]]:
    """Yield the numbers of neighbouring frames of the same size."""
    run: list[int] = []
    for number, frame in enumerate(frames):
        if run and frames[run[-1]].shape != frame.shape:
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def resize(frame: U8, size: Size) -> U8:
    """Return the frame in that width and height, each pixel the mean of its area."""
    if frame.shape[1::-1] == size:
        return frame
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
