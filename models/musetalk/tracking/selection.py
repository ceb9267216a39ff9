"""Which face of several is animated: the one that the job asks for, tracked from frame to frame."""

from __future__ import annotations

from typing import Literal

import numpy as np

from models.arrays import Floats

FaceChoice = Literal["largest"] | int
"""The largest face where a shot begins, or a number counted from 0, from left to right."""

SAME_FACE_IOU = 0.2
"""A face that overlaps the place of the last one by this much (intersection over union) is the
same face."""
LOST_FRAMES = 12
"""After this many frames without the face, a new one is chosen."""


class FaceSelector:
    """Selects one face in each frame of a shot. Frames come in order."""

    def __init__(self, choice: FaceChoice) -> None:
        self.choice = choice
        self._last: Floats | None = None
        self._missed_frames = 0

    def select(self, faces: Floats) -> int | None:
        """Return the index of the face in (k, 5) x1, y1, x2, y2, score; None without it."""
        index = self._find_same(faces)
        if index is None and (self._last is None or self._missed_frames >= LOST_FRAMES):
            index = self._select_new(faces)
        if index is None:
            self._missed_frames += 1
            return None
        self._last, self._missed_frames = faces[index, :4], 0
        return index

    def _find_same(self, faces: Floats) -> int | None:
        if self._last is None or not len(faces):
            return None
        overlaps = intersection_over_union(self._last, faces)
        return int(overlaps.argmax()) if overlaps.max() >= SAME_FACE_IOU else None

    def _select_new(self, faces: Floats) -> int | None:
        if not len(faces):
            return None
        if self.choice == "largest":
            return int(box_areas(faces).argmax())
        order = np.argsort(faces[:, 0] + faces[:, 2], kind="stable")
        return int(order[self.choice]) if self.choice < len(order) else None


def box_areas(boxes: Floats) -> Floats:
    """Return the area of each box (k, 4 or 5) in square pixels, (k,); 0 if inside out."""
    sides: Floats = np.maximum(boxes[:, 2:4] - boxes[:, :2], 0)
    return np.asarray(sides.prod(1))


def intersection_over_union(box: Floats, others: Floats) -> Floats:
    """Return the intersection over union, (k,), of `box` (4 or 5,) with each of (k, 4 or 5)."""
    sides = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2])
    both = np.maximum(sides, 0).prod(1)
    return np.asarray(both / (box_areas(others) + box_areas(box[None]) - both + 1e-9))
