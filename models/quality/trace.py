"""Where a face is in the frames of a result, as its engine knows it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from models.arrays import F64, Bool, Floats


@dataclass(frozen=True, slots=True)
class FaceTrace:
    """A face in n frames in a row. Boxes are (n, 4) float64: x, y, width, height in pixels of the result.

    faces     the whole face
    mouths    the lips, with room for an open mouth
    uppers    eyes and brows, which no engine of lips changes
    painted   what the engine changes; its edge is where old and new pixels meet
    seen      (n,) whether the frame shows the face
    seam      which edges of `painted` are inside the face: all, or the upper one
    expected  (n,) how far the voice lets one expect the mouth to be open, 0 to 1; None: that is computed
    bare      (n, k, 3) the steps of tone that the avatar itself has at that edge (`measure_steps`); None: not known
    """

    faces: F64
    mouths: F64
    uppers: F64
    painted: F64
    seen: Bool
    seam: Literal["around", "above"] = "around"
    expected: Floats | None = None
    bare: Floats | None = None

    def cut(self, start: int, stop: int) -> FaceTrace:
        """Return the trace of frames [start, stop)."""
        part = slice(start, stop)
        return replace(
            self,
            faces=self.faces[part],
            mouths=self.mouths[part],
            uppers=self.uppers[part],
            painted=self.painted[part],
            seen=self.seen[part],
            expected=None if self.expected is None else self.expected[part],
            bare=None if self.bare is None else self.bare[part],
        )


def take_share(boxes: F64, left: float, top: float, right: float, bottom: float) -> F64:
    """Return (n, 4) the parts of boxes between such shares of their width and height."""
    x, y, w, h = boxes.T
    return np.stack([x + left * w, y + top * h, (right - left) * w, (bottom - top) * h], 1)


def place_by_eyes(eyes: F64, left: float | F64, top: float | F64, right: float | F64, bottom: float | F64) -> F64:
    """Return (n, 4) the boxes around a rectangle of the face, in hundredths of the eye distance from between the eyes.

    `eyes` is (n, 2, 2): the left and the right one, x and y in pixels. The boxes are upright, also in a tilted face.
    The edges may be (n,) arrays.
    """
    across = (eyes[:, 1] - eyes[:, 0]) / 100
    scale = np.hypot(*across.T)
    down = np.stack([-across[:, 1], across[:, 0]], -1)
    x, y = np.atleast_1d((left + right) / 2)[:, None], np.atleast_1d((top + bottom) / 2)[:, None]
    middle = eyes.mean(1) + x * across + y * down
    w, h = (right - left) * scale, (bottom - top) * scale
    return np.stack([middle[:, 0] - w / 2, middle[:, 1] - h / 2, w, h], 1)
