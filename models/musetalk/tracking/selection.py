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


class JointSelector:
    """Selects one of several faces in each frame of a shot, so that no two of them are ever the same.

    They are numbered from left to right in the first frame that shows all of them; before that
    none is selected. A face that is lost comes back where it was, or with the next such frame.
    """

    def __init__(self, choice: int, count: int) -> None:
        """Select number `choice` of `count` faces."""
        self.choice = choice
        self._last: list[Floats | None] = [None] * count
        self._missed_frames = [0] * count

    def select(self, faces: Floats) -> int | None:
        """Return the index of the face in (k, 5) x1, y1, x2, y2, score; None without it."""
        found = self._find_same(faces)
        count = len(self._last)
        is_lost = any(
            n not in found and (self._last[n] is None or self._missed_frames[n] >= LOST_FRAMES) for n in range(count)
        )
        if is_lost and len(faces) >= count:
            order = np.argsort(faces[:, 0] + faces[:, 2], kind="stable")
            free = [int(index) for index in order if int(index) not in found.values()]
            for n in (n for n in range(count) if n not in found):
                found[n] = int(order[n]) if int(order[n]) in free else free[0]
                free.remove(found[n])
        for n in range(count):
            self._missed_frames[n] = 0 if n in found else self._missed_frames[n] + 1
            self._last[n] = faces[found[n], :4] if n in found else self._last[n]
        return found.get(self.choice)

    def _find_same(self, faces: Floats) -> dict[int, int]:
        """Return which faces of the last frames are which now, those that overlap most first."""
        pairs = [
            (float(overlap), n, index)
            for n, last in enumerate(self._last)
            if last is not None and len(faces)
            for index, overlap in enumerate(intersection_over_union(last, faces))
            if overlap >= SAME_FACE_IOU
        ]
        found: dict[int, int] = {}
        for _, n, index in sorted(pairs, reverse=True):
            if n not in found and index not in found.values():
                found[n] = index
        return found


def box_areas(boxes: Floats) -> Floats:
    """Return the area of each box (k, 4 or 5) in square pixels, (k,); 0 if inside out."""
    sides: Floats = np.maximum(boxes[:, 2:4] - boxes[:, :2], 0)
    return np.asarray(sides.prod(1))


def intersection_over_union(box: Floats, others: Floats) -> Floats:
    """Return the intersection over union, (k,), of `box` (4 or 5,) with each of (k, 4 or 5)."""
    sides = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2])
    both = np.maximum(sides, 0).prod(1)
    return np.asarray(both / (box_areas(others) + box_areas(box[None]) - both + 1e-9))
