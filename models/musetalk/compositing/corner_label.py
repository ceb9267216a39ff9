"""The label that says in a corner what a video is."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import I64, U8
from models.media import split_planes
from models.musetalk.geometry import Size

_FONT = cv2.FONT_HERSHEY_DUPLEX
_WHITE, _NEUTRAL = 235, 128


class CornerLabel:
    """A label top left, or bottom left where it would cover a face, for frames of one size."""

    def __init__(self, text: str, size: Size, boxes: I64) -> None:
        """Choose the place.

        boxes   (n, 4) x1, y1, x2, y2 of all faces
        """
        (width, height), self._text = size, text
        self._scale = max(0.3, min(height / 1000, width / 700))
        self._stroke, margin = max(1, round(self._scale * 1.4)), round(9 * self._scale) + 2
        (wide, high), below = cv2.getTextSize(text, _FONT, self._scale, self._stroke)
        right, tall = min(width, wide + 2 * margin), min(height, high + below + 2 * margin)
        right, tall = right // 2 * 2, tall // 2 * 2
        is_covered = bool(((boxes[:, 0] < right) & (boxes[:, 1] < tall)).any())
        top = (height - tall) // 2 * 2 if is_covered else 0
        self._rows, self._columns = slice(top, top + tall), slice(0, right)
        self._place = (margin, high + margin)

    def stamp(self, frame: U8) -> None:
        """Write the label into planes (h * 3 / 2, w), or into BGR or BGRA (h, w, 3 or 4), in place."""
        if frame.ndim == 3:
            self._write(frame[self._rows, self._columns], (_WHITE,) * 3 + (255,))
            return
        luma, *chroma = split_planes(frame)
        self._write(luma[self._rows, self._columns], (_WHITE,))
        rows, columns = (slice(one.start // 2, one.stop // 2) for one in (self._rows, self._columns))
        for plane in chroma:
            plane[rows, columns] = _NEUTRAL

    def _write(self, corner: U8, colour: tuple[int, ...]) -> None:
        dark = np.ascontiguousarray(corner)
        dark[..., : 3 if dark.ndim == 3 else None] //= 3
        if dark.ndim == 3 and dark.shape[2] == 4:
            dark[..., 3] = 255
        cv2.putText(dark, self._text, self._place, _FONT, self._scale, colour, self._stroke, cv2.LINE_AA)
        corner[:] = dark
