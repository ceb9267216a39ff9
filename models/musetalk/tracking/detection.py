"""Faces in frames: found by S3FD, pointed out by DWPose, cut out for the painter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.musetalk.nets import dwpose, s3fd
from models.musetalk.weights.onnx_pose import OnnxPose

Bgr = npt.NDArray[np.uint8]
Floats = npt.NDArray[Any]
Region = tuple[float, float, float, float]
"""Middle x, y, width and height in pixels of what the pose net sees, three wide to four high; may leave the frame."""

REDUCED_SIDE = 448
"""Longest side of a frame as the detector sees it: at 1280x720 an eighth of the work, at 1920x1080 an eighteenth."""
LARGEST_SIDE = 1920
"""Of a frame that is searched again, outside of the reference's way."""
MIN_SCORE = 0.5
FACE_POINTS = slice(23, 91)
SIDE = 256

_FORWARD_PIXELS = 1_000_000
_POSE_BATCH = 8


class FaceNets:
    """Both networks on one device; frames go in as (h, w, 3) uint8 BGR of any size, odd ones too."""

    def __init__(self, detector: nn.Module, pose: nn.Module | OnnxPose, device: torch.device) -> None:
        """`detector` is an S3FD on `device`, `pose` a DwPose there or an OnnxPose; float32, ready to run."""
        self._detector, self._pose, self._device = detector, pose, device

    def detect(self, frames: Sequence[Bgr], *, reference: bool = False) -> list[Floats]:
        """Of each frame its faces: (k, 5) float32 x1, y1, x2, y2, score in pixels of the frame, best first.

        In the reference's way frames are searched one by one at their full size. Else small copies are, many at once,
        and at full size only where that shows nothing: a frame is never called empty on the small copy's word.
        """
        if reference:
            return [self._search([frame], 1.0)[0] for frame in frames]
        found = self._search_all(frames, REDUCED_SIDE)
        for number, frame in enumerate(frames):
            if not len(found[number]) and max(frame.shape) > REDUCED_SIDE:
                found[number] = self._search_all([frame], LARGEST_SIDE)[0]
        return found

    def find_landmarks(self, frames: Sequence[Bgr], regions: Sequence[Region] | None = None) -> Floats:
        """(n, 68, 2) float64 x, y in pixels of the frame, in the usual order. Without `regions`: of whole frames."""
        looked_at = regions or [whole_frame_region(frame.shape[1], frame.shape[0]) for frame in frames]
        found = np.empty((len(frames), 68, 2))
        for numbers in split_batches(range(len(frames)), _POSE_BATCH):
            crops = torch.from_numpy(np.stack([crop_region(frames[number], looked_at[number]) for number in numbers]))
            points = self._points(crops.to(self._device))
            for number, point in zip(numbers, points, strict=True):
                found[number] = to_frame_pixels(point[FACE_POINTS], looked_at[number])
        return found

    def _search_all(self, frames: Sequence[Bgr], side: int) -> list[Floats]:
        found: list[Floats] = []
        for numbers in group_by_size(frames):
            height, width = frames[numbers[0]].shape[:2]
            scale = min(1.0, side / max(width, height))
            many = max(1, int(_FORWARD_PIXELS / (scale * width * scale * height)))
            for some in split_batches(numbers, many):
                found += self._search([frames[number] for number in some], scale)
        return found

    @torch.inference_mode()
    def _search(self, frames: Sequence[Bgr], scale: float) -> list[Floats]:
        """Frames of one size, in one batch."""
        height, width = frames[0].shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        batch = torch.from_numpy(np.stack([resize(frame, small) for frame in frames])).to(self._device)
        levels = self._detector(s3fd.network_input(batch))
        back = np.array([width / small[0], height / small[1]] * 2 + [1.0], np.float32)
        return [s3fd.suppress_overlaps(faces) * back for faces in s3fd.find_candidates(levels, MIN_SCORE)]

    @torch.inference_mode()
    def _points(self, crops: Tensor) -> Floats:
        inputs = dwpose.network_input(crops)
        x, y = self._pose(torch.cat([inputs, inputs.flip(-1)]))
        count = len(inputs)
        points, _ = dwpose.locate_points(dwpose.average_flip((x[:count], y[:count]), (x[count:], y[count:])))
        return np.asarray(points.cpu().numpy())


def split_batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def group_by_size(frames: Sequence[Bgr]) -> Iterator[list[int]]:
    """Numbers of neighbouring frames of the same size."""
    run: list[int] = []
    for number, frame in enumerate(frames):
        if run and frames[run[-1]].shape != frame.shape:
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def resize(frame: Bgr, size: tuple[int, int]) -> Bgr:
    if frame.shape[1::-1] == size:
        return frame
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def whole_frame_region(width: int, height: int) -> Region:
    """The reference's region: the whole frame and an eighth of it on each side, and more on two sides for the shape."""
    return region_around(width / 2, height / 2, 1.25 * width, 1.25 * height)


def region_around(x: float, y: float, width: float, height: float) -> Region:
    """The smallest region of the pose net's shape about (x, y) that is so wide and so high."""
    shape = dwpose.WIDTH / dwpose.HEIGHT
    return (x, y, width, width / shape) if width > height * shape else (x, y, height * shape, height)


def face_region(box: Floats) -> Region:
    """Head and shoulders of one of several people: four times as high as the face, which lies above the middle."""
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    side = max(x2 - x1, y2 - y1)
    return region_around((x1 + x2) / 2, (y1 + y2) / 2 + 0.75 * side, 3 * side, 4 * side)


def crop_region(frame: Bgr, region: Region) -> Bgr:
    """(384, 288, 3): the region as the pose net sees it, black outside the frame."""
    x, y, width, _ = region
    scale = dwpose.WIDTH / width
    turn = np.array([[scale, 0, dwpose.WIDTH / 2 - scale * x], [0, scale, dwpose.HEIGHT / 2 - scale * y]])
    return np.asarray(cv2.warpAffine(frame, turn, (dwpose.WIDTH, dwpose.HEIGHT), flags=cv2.INTER_LINEAR), np.uint8)


def to_frame_pixels(points: Floats, region: Region) -> Floats:
    """(k, 2) pixels of the pose net's input -> pixels of the frame, with the reference's roundings."""
    middle, sides = np.array(region[:2], np.float32), np.array(region[2:], np.float32)
    return points / np.array([dwpose.WIDTH, dwpose.HEIGHT]) * sides + middle - 0.5 * sides


def crop_clipped(frame: Bgr, box: Sequence[int]) -> Bgr:
    """(256, 256, 3): the face as the reference cuts it. A box beyond the right or lower edge is cut short."""
    x1, y1, x2, y2 = (int(edge) for edge in box)
    return _resize_face(frame[y1:y2, x1:x2])


def crop_padded(frame: Bgr, box: Sequence[int]) -> Bgr:
    """(256, 256, 3): the face in its own proportions. What lies outside the frame repeats the pixels at its edge.

    The box has to share at least a pixel with the frame. Inside the frame it is `clipped_crop` to the bit.
    """
    x1, y1, x2, y2 = (int(edge) for edge in box)
    height, width = frame.shape[:2]
    missing = (max(0, -y1), max(0, y2 - height), max(0, -x1), max(0, x2 - width))
    inside = frame[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)]
    return _resize_face(np.asarray(cv2.copyMakeBorder(inside, *missing, cv2.BORDER_REPLICATE), np.uint8))


def _resize_face(crop: Bgr) -> Bgr:
    return np.asarray(cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_LANCZOS4), np.uint8)
