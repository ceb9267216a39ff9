"""Gives an inpainted face the tone of its frame, by what both differ at the edge of the mask.

There they show the same skin. The difference is spread over the face so slowly that no detail changes.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from models.arrays import F32, U8, U16

MOST_LEVELS = 24
"""Of a difference that counts: what differs by more is no matter of tone."""
_FINE, _COARSE = 64, 16
_SPREAD = 4.0
"""Standard deviation of the blur, in cells of the coarse grid."""


class ColourMatch:
    """Corrects faces under one mask; each frame is corrected by itself."""

    def __init__(self, weights: U16) -> None:
        """Compute where the edge is.

        weights   (h, w), 0 to 255: how much of the face shows
        """
        height, width = weights.shape
        self._size, self._fine = (width, height), (min(width, _FINE), min(height, _FINE))
        edge = weights.astype(np.float32) * (255 - weights.astype(np.float32))
        self._edge = _resize(edge, self._fine, cv2.INTER_AREA)
        self._reach = _spread(self._edge) + 1e-6

    def apply(self, face: U8, frame: U8) -> U8:
        """Return the face (h, w) or (h, w, 3) with the tone of the frame, of the same shape."""
        apart = cv2.subtract(np.ascontiguousarray(frame), np.ascontiguousarray(face), dtype=cv2.CV_32F)
        gap = _resize(apart, self._fine, cv2.INTER_AREA).clip(-MOST_LEVELS, MOST_LEVELS)
        edge, reach = (self._edge, self._reach) if face.ndim == 2 else (self._edge[..., None], self._reach[..., None])
        shift = _resize(_spread(gap * edge) / reach, self._size, cv2.INTER_LINEAR)
        return np.asarray(cv2.add(face, shift, dtype=cv2.CV_8U), np.uint8)


def _spread(values: F32) -> F32:
    """Return the values (h, w) or (h, w, 3) blurred, on the coarse grid."""
    coarse = _resize(values, (_COARSE, _COARSE), cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(coarse, (0, 0), _SPREAD, borderType=cv2.BORDER_CONSTANT), np.float32)


def _resize(values: Any, size: tuple[int, int], interpolation: int) -> Any:
    return np.asarray(cv2.resize(values, size, interpolation=interpolation))
