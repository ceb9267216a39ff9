"""Whose mouth moves: of the faces seen in each frame the one that the job wants, followed through the video."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]

SAME_FACE_IOU = 0.2
"""A face that covers so much of where the last one was (intersection over union) is the same."""
LOST_FRAMES = 12
"""After so many frames without the face, whoever fits the wish is followed next."""


class FaceSelector:
    """Told of the faces frame by frame, says which is meant. `face`: "largest", or a number from left to right."""

    def __init__(self, face: Literal["largest"] | int) -> None:
        self.face = face
        self._last: Floats | None = None
        self._unseen = 0

    def select(self, detected: Floats) -> int | None:
        """Index into (k, 5) x1, y1, x2, y2, score; None where the face is not seen."""
        index = self._find_same(detected)
        if index is None and (self._last is None or self._unseen >= LOST_FRAMES):
            index = self._select_new(detected)
        if index is None:
            self._unseen += 1
            return None
        self._last, self._unseen = detected[index, :4], 0
        return index

    def _find_same(self, detected: Floats) -> int | None:
        if self._last is None or not len(detected):
            return None
        shared = intersection_over_union(self._last, detected)
        return int(shared.argmax()) if shared.max() >= SAME_FACE_IOU else None

    def _select_new(self, detected: Floats) -> int | None:
        if not len(detected):
            return None
        if self.face == "largest":
            return int(box_areas(detected).argmax())
        order = np.argsort(detected[:, 0] + detected[:, 2], kind="stable")
        return int(order[self.face]) if self.face < len(order) else None


def box_areas(boxes: Floats) -> Floats:
    sides: Floats = np.maximum(boxes[:, 2:4] - boxes[:, :2], 0)
    return np.asarray(sides.prod(1))


def intersection_over_union(box: Floats, others: Floats) -> Floats:
    """(k,): intersection over union of `box` with each of (k, 4 or 5)."""
    sides = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2])
    both = np.maximum(sides, 0).prod(1)
    return np.asarray(both / (box_areas(others) + box_areas(box[None]) - both + 1e-9))
