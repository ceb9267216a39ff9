"""Look at frames as they are made, and note what the figures need. It costs a small part of the drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np

from models.arrays import F64, U8
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
_EDGE_LEVELS = 8


@dataclass(slots=True)
class Samples:
    """What was seen of each of f faces in n frames.

    patches   (f, n, 12, 16) uint8, the mouths in grey; 0 where no face is seen
    mouths    (f, n) float32, fine detail of the mouth; NaN where it was not measured
    uppers    (f, n) float32, the same of the upper face
    seams     (f, n) float32, the step of tone at the edge of what is painted, in levels of 0..255
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
            np.savez(file, patches=self.patches, mouths=self.mouths, uppers=self.uppers, seams=self.seams)

    def fill(self, path: Path, start: int) -> None:
        """Take over the frames from `start` on that were saved there, if they can be read."""
        try:
            with np.load(path, allow_pickle=False) as saved:
                for name in self.__slots__:
                    part = saved[name]
                    getattr(self, name)[:, start : start + part.shape[1]] = part
        except (OSError, EOFError, ValueError, KeyError, BadZipFile):
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
    samples.patches[number, n] = cv2.resize(mouth, PATCH, interpolation=cv2.INTER_AREA)
    if not is_full:
        return
    upper, reach = cut_grey(frame, trace.uppers[n], height), measure_reach(trace.faces[n])
    if upper.size:
        samples.mouths[number, n] = measure_detail(mouth, reach)
        samples.uppers[number, n] = measure_detail(upper, reach)
    samples.seams[number, n] = measure_seam(frame, trace.painted[n], height, trace.seam)


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
    return float(np.minimum(away, _EDGE_LEVELS).mean())


def measure_seam(frame: U8, box: F64, height: int, where: str) -> float:
    """Return the step of tone from outside to inside of a box beyond the slope on both sides, in levels of grey.

    It is the median along the edge: a shadow or a hair crosses a part of it only. NaN where the frame cuts the box.
    """
    x, y, w, h = box.tolist()
    wide = np.array([x - _AROUND * w, y - _AROUND * h, (1 + 2 * _AROUND) * w, (1 + 2 * _AROUND) * h])
    if min(wide[:2]) < 0 or wide[0] + wide[2] > frame.shape[1] or wide[1] + wide[3] > height or min(w, h) < 8:
        return float("nan")
    cells = cv2.resize(cut_grey(frame, wide, height), (_GRID, _GRID), interpolation=cv2.INTER_AREA).astype(np.float32)
    sides = [cells] if where == "above" else [cells, cells.T, cells[::-1], cells.T[::-1]]
    edge, inner = _EDGE, _GRID - 2 * _EDGE - 8
    length = inner // _SEGMENTS * _SEGMENTS
    first = (_GRID - length) // 2
    steps = []
    for side in sides:
        strips = [side[edge + start : edge + stop, first : first + length].mean(0) for start, stop in _BANDS]
        far, near, inside, deep = (strip.reshape(_SEGMENTS, -1).mean(1) for strip in strips)
        steps.append((inside - near) - ((near - far) + (deep - inside)) / 2)
    return float(np.median(np.concatenate(steps)))
