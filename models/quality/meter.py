"""Look at frames as they are made, and note what the figures need. It costs a small part of the drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.arrays import F32, F64, U8, Floats
from models.atomic import atomic_write
from models.media.prefetch import closing_all
from models.quality.trace import FaceTrace

PATCH = (16, 12)
"""Width and height to which the picture of a mouth is reduced."""
EVERY = 5
"""Sharpness and seam are measured in each frame whose number this divides."""
_GRID, _AROUND = 56, 0.2
"""Cells of the picture of the painted box with its surroundings, and how wide those are, as a share of the box."""
_EDGE = round(_GRID * _AROUND / (1 + 2 * _AROUND))
_BANDS = ((-7, -4), (-3, 0), (1, 4), (5, 8))
"""Cells from the edge inwards, of two bands outside of it and two inside."""
_SEGMENTS = 6
_STEPS = np.zeros((2, _GRID), np.float32)
"""Weights of the cells along a line into the box, and out of it: what they sum to is the step beyond the slopes."""
for _band, _weight in zip(_BANDS, (0.5, -1.5, 1.5, -0.5), strict=True):
    _STEPS[0, _EDGE + _band[0] : _EDGE + _band[1]] = _weight / (_band[1] - _band[0])
_STEPS[1] = _STEPS[0, ::-1]
_MEANS = np.zeros((_SEGMENTS, _GRID), np.float32)
"""Weights of the cells along a side, but those near the corners: the means of its segments."""
_LENGTH = (_GRID - 2 * _EDGE - 8) // _SEGMENTS
for _segment in range(_SEGMENTS):
    _start = (_GRID - _LENGTH * _SEGMENTS) // 2 + _LENGTH * _segment
    _MEANS[_segment, _start : _start + _LENGTH] = 1 / _LENGTH
_LEVELS = np.array([255 / 219, 255 / 224, 255 / 224])
"""Levels of 0 to 255 in one of the brightness and the colours of video."""
_EDGE_LEVELS = 8


_ROW = np.dtype([("patches", "u1", PATCH[::-1]), ("mouths", "<f4"), ("uppers", "<f4"), ("seams", "<f4")])
"""What a file has of a face in a frame."""


@dataclass(slots=True)
class Samples:
    """What was seen of each of f faces in n frames.

    patches   (f, n, 12, 16) uint8, the mouths in grey; 0 where no face is seen
    mouths    (f, n) float32, fine detail of the mouth; NaN where it was not measured
    uppers    (f, n) float32, the same of the upper face
    seams     (f, n) float32, the step of tone or colour at the edge of what is painted, in levels of 0..255
    """

    patches: U8
    mouths: F64
    uppers: F64
    seams: F64

    @classmethod
    def make_empty(cls, faces: int, frames: int) -> Samples:
        """Return samples of frames that were not looked at."""
        blank = (np.full((faces, frames), np.nan) for _ in range(3))
        return cls(np.zeros((faces, frames, PATCH[1], PATCH[0]), np.uint8), *blank)

    def cut(self, face: int, frames: range) -> Samples:
        """Return those of one face in some frames."""
        parts = (getattr(self, name)[face : face + 1, frames.start : frames.stop] for name in self.__slots__)
        return Samples(*parts)

    def save(self, path: Path) -> None:
        """Write them by rename. A power cut may take them: then fewer frames are measured."""
        with atomic_write(path, durable=False) as temp_path, temp_path.open("wb") as file:
            rows = np.empty(self.seams.shape, _ROW)
            for name in self.__slots__:
                rows[name] = getattr(self, name)
            np.save(file, rows)

    def fill(self, path: Path, start: int) -> None:
        """Take over the frames from `start` on that were saved there, if they can be read."""
        try:
            saved = np.load(path, allow_pickle=False)
            for name in self.__slots__:
                getattr(self, name)[:, start : start + saved.shape[1]] = saved[name]
        except (OSError, EOFError, ValueError, LookupError):
            return


def watch_frames(
    frames: Iterator[U8], traces: Sequence[FaceTrace], first: int, height: int, path: Path
) -> Iterator[U8]:
    """Yield the frames, the first of which has the number `first`, and save the samples of all at their end.

    `height` is that of the picture: planes of 4:2:0 are known by their greater one.
    """
    samples = Samples.make_empty(len(traces), len(traces[0].seen))
    with closing_all(frames):
        for n, frame in enumerate(frames):
            for number, trace in enumerate(traces):
                if trace.seen[n]:
                    look_at_face(frame, trace, n, height, samples, number, is_full=(first + n) % EVERY == 0)
            yield frame
    samples.save(path)


def look_at_face(
    frame: U8, trace: FaceTrace, n: int, height: int, samples: Samples, number: int, *, is_full: bool
) -> None:
    """Note what frame `n` of the trace shows of face `number`; without `is_full` the mouth alone."""
    mouth = cut_grey(frame, trace.mouths[n], height)
    if not mouth.size:
        return
    every = max(1, mouth.shape[1] // (4 * PATCH[0]))
    samples.patches[number, n] = cv2.resize(mouth[::every, ::every], PATCH, interpolation=cv2.INTER_AREA)
    if not is_full:
        return
    upper, reach = cut_grey(frame, trace.uppers[n], height), measure_reach(trace.faces[n])
    if upper.size:
        samples.mouths[number, n] = measure_detail(mouth, reach)
        samples.uppers[number, n] = measure_detail(upper, reach)
    bare = None if trace.bare is None else trace.bare[n]
    samples.seams[number, n] = measure_seam(frame, trace.painted[n], height, trace.seam, bare)


def cut_grey(frame: U8, box: F64, height: int) -> U8:
    """Return the part of a frame in a box that is inside of it, (h, w) uint8 in grey; it may be empty."""
    x, y, w, h = box.tolist()
    left, top = max(0, round(x)), max(0, round(y))
    right, bottom = max(left, round(x + w)), max(top, min(height, round(y + h)))
    part = frame[top:bottom, left:right]
    if part.ndim == 2:
        return part
    if not part.size:
        return part[..., 0]
    return np.asarray(cv2.cvtColor(part[..., :3], cv2.COLOR_BGR2GRAY), np.uint8)


def measure_reach(face: F64) -> int:
    """Return the width in pixels, odd, over which a detail of a face is fine."""
    return max(3, 2 * round(float(face[2]) / 120) + 1)


def measure_detail(grey: U8, reach: int) -> float:
    """Return how much fine detail a grey picture has: the mean distance from its average over `reach` pixels.

    A strong edge counts like a weak one: an open mouth has no more detail than a shut one.
    """
    away = cv2.absdiff(grey, cv2.blur(grey, (reach, reach)))
    return float(cv2.mean(cv2.threshold(away, _EDGE_LEVELS, 0, cv2.THRESH_TRUNC)[1])[0])


def measure_seam(frame: U8, box: F64, height: int, where: str, bare: Floats | None = None) -> float:
    """Return the step of tone or colour from outside to inside of a box, in levels of 0 to 255.

    `bare` are the steps that the avatar's own picture has there, as `measure_steps` returns them. Of brightness and
    both colours the greatest counts. It is the median along the edge: a shadow or a hair crosses a part of it only.
    NaN where the frame cuts the box.
    """
    steps = measure_steps(frame, box, height, where)
    if bare is not None:
        steps = steps - np.nan_to_num(bare)
    known = steps[np.isfinite(steps[:, 0])]
    if not len(known):
        return float("nan")
    found = np.median(known, 0)
    return round(float(found[np.abs(found).argmax()]), 3)


def measure_steps(frame: U8, box: F64, height: int, where: str) -> F64:
    """Return the steps from outside to inside of a box beyond the slope on both sides, (k, 3) in levels of 0 to 255.

    Of brightness and of both colours (YCrCb), in k parts of the edge: 6 of the top, or also of the bottom, the left and
    the right. NaN where the frame cuts the box, and of sides of which it cuts what is around them.
    """
    x, y, w, h = box.tolist()
    wide = np.array([x - _AROUND * w, y - _AROUND * h, (1 + 2 * _AROUND) * w, (1 + 2 * _AROUND) * h])
    right, bottom = frame.shape[1], height
    if x < 0 or y < 0 or x + w > right or y + h > bottom or min(w, h) < 8:
        return np.full((count_steps(where), len(_LEVELS)), np.nan)
    cells = cut_cells(frame, wide, height)
    sides = [*(_STEPS @ cells @ _MEANS.T).swapaxes(0, 1), *(_STEPS @ cells.swapaxes(1, 2) @ _MEANS.T).swapaxes(0, 1)]
    steps = np.array(sides, np.float64).swapaxes(1, 2)
    steps[[wide[1] < 0, wide[1] + wide[3] > bottom, wide[0] < 0, wide[0] + wide[2] > right]] = np.nan
    if frame.ndim == 2:
        steps *= _LEVELS
    return np.asarray(steps.reshape(-1, len(_LEVELS))[: count_steps(where)])


def count_steps(where: str) -> int:
    return _SEGMENTS * (1 if where == "above" else 4)


def cut_cells(frame: U8, box: F64, height: int) -> F32:
    """Return the part of a frame in a box as cells, (3, 56, 56) float32: brightness, Cr and Cb.

    What is beyond the frame is as its edge.
    """
    if frame.ndim == 2:
        u, v = frame[height:].reshape(2, height // 2, -1)
        planes = [reduce_part(frame[:height], box), reduce_part(v, box / 2), reduce_part(u, box / 2)]
    else:
        planes = [*np.moveaxis(cv2.cvtColor(reduce_part(frame[..., :3], box), cv2.COLOR_BGR2YCrCb), 2, 0)]
    return np.array(planes, np.float32)


def reduce_part(plane: U8, box: F64) -> U8:
    """Return the part of a picture in a box in the size of the grid: twice that of a large one is sampled first."""
    x, y, w, h = box.tolist()
    left, top, right, bottom = round(x), round(y), round(x + w), round(y + h)
    part = plane[max(0, top) : bottom, max(0, left) : right]
    beyond = max(0, -top), max(0, bottom - plane.shape[0]), max(0, -left), max(0, right - plane.shape[1])
    if any(beyond):
        part = np.asarray(cv2.copyMakeBorder(part, *beyond, cv2.BORDER_REPLICATE), np.uint8)
    if min(part.shape[:2]) > 2 * _GRID:
        part = np.asarray(cv2.resize(part, (2 * _GRID, 2 * _GRID), interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.asarray(cv2.resize(part, (_GRID, _GRID), interpolation=cv2.INTER_AREA), np.uint8)
