"""The label in the corner, so that nobody takes a preview for the real thing."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

TEXT = "PREVIEW - no model weights"

_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Label:
    """The label for frames of (width, height) pixels: top left, or bottom left where it would cover a face.

    `faces` is (n, 4): x, y, w, h of the face in every frame that it has.
    """

    def __init__(self, width: int, height: int, faces: npt.NDArray[Any]) -> None:
        self._size = max(0.3, min(height / 1000, width / 700))
        self._stroke = max(1, round(self._size * 1.4))
        (wide, self._high), below = cv2.getTextSize(TEXT, _FONT, self._size, self._stroke)
        self._margin = round(9 * self._size) + 2
        self._wide, self._tall = wide + 2 * self._margin, self._high + below + 2 * self._margin
        covers = (faces[:, 0] < self._wide) & (faces[:, 1] < self._tall)
        self._top = height - self._tall if covers.any() else 0

    def stamp(self, frame: npt.NDArray[Any]) -> None:
        """Write the label into a frame, in place."""
        corner = frame[self._top : self._top + self._tall, : self._wide]
        np.floor_divide(corner, 3, out=corner)
        where = (self._margin, self._top + self._high + self._margin)
        cv2.putText(frame, TEXT, where, _FONT, self._size, (255, 255, 255), self._stroke, cv2.LINE_AA)
