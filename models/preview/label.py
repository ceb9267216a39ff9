"""The label in the corner, which tells a preview from a final video."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import U8, Floats

TEXT = "PREVIEW - no model weights"

_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Label:
    """The label for frames of (width, height) pixels: top left, or bottom left where it would
    cover a face.

    `faces` is (n, 4): x, y, w, h in pixels of the face in every frame that shows it.
    """

    def __init__(self, width: int, height: int, faces: Floats) -> None:
        self._size = max(0.3, min(height / 1000, width / 700))
        self._stroke = max(1, round(self._size * 1.4))
        (wide, self._high), below = cv2.getTextSize(TEXT, _FONT, self._size, self._stroke)
        self._margin = round(9 * self._size) + 2
        self._wide, self._tall = wide + 2 * self._margin, self._high + below + 2 * self._margin
        covers = (faces[:, 0] < self._wide) & (faces[:, 1] < self._tall)
        self._top = height - self._tall if covers.any() else 0

    def stamp(self, frame: U8) -> None:
        """Write the label into a (h, w, 3) uint8 frame, in place."""
        corner = frame[self._top : self._top + self._tall, : self._wide]
        np.floor_divide(corner, 3, out=corner)
        where = (self._margin, self._top + self._high + self._margin)
        cv2.putText(frame, TEXT, where, _FONT, self._size, (255, 255, 255), self._stroke, cv2.LINE_AA)
