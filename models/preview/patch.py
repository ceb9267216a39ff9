"""A part of a face taken out of a picture upright, in face units, and put back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.preview.face import Crop, Face, Image, transform, upright

Floats = npt.NDArray[Any]

FINEST = 3.0
"""Pixels for a face unit at the most: larger faces are drawn at this and enlarged, which bounds a frame's cost."""


def scale_for(face: Face) -> float:
    """Pixels for a face unit: the picture's own resolution, up to FINEST."""
    return float(min(FINEST, max(0.6, face.eye_distance / 100)))


def units(crop: Crop, scale: float) -> tuple[Floats, Floats]:
    """The x and the y of each pixel of a crop, in face units; both (h, w) float32."""
    columns, rows = np.arange(round(crop.width * scale)), np.arange(round(crop.height * scale))
    x, y = np.meshgrid(columns / scale + crop.left, rows / scale + crop.top)
    return x.astype(np.float32), y.astype(np.float32)


class Patch:
    """The place of a crop of one face in pictures of one size. `mask` (h, w) says how much of the patch is put back."""

    def __init__(self, shape: tuple[int, ...], face: Face, crop: Crop, scale: float, mask: Floats) -> None:
        self.face, self.crop, self.scale = face, crop, scale
        there = face.to_upright.copy()
        there[:, 2] -= (crop.left, crop.top)
        self._back = cv2.invertAffineTransform(there * scale)
        height, width = mask.shape
        corners = transform([(0, 0), (width, 0), (0, height), (width, height)], self._back)
        low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
        self._x, self._y = slice(max(0, low[0]), min(shape[1], high[0])), slice(max(0, low[1]), min(shape[0], high[1]))
        self._size = (self._x.stop - self._x.start, self._y.stop - self._y.start)
        self._back[:, 2] -= (self._x.start, self._y.start)
        self._mask = self._warped(mask)[..., None] if self.visible else mask[..., None]

    @property
    def visible(self) -> bool:
        return bool(min(self._size) > 0)

    def take(self, image: Image) -> Image:
        return upright(image, self.face, self.crop, self.scale)

    def put(self, frame: Image, patch: Image, weight: float = 1.0) -> None:
        """Blend the patch into the frame, in place."""
        if self.visible:
            region = frame[self._y, self._x]
            share = self._mask * np.float32(weight)
            region[...] = (region + (self._warped(patch) - region) * share + np.float32(0.5)).astype(np.uint8)

    def _warped(self, patch: npt.NDArray[Any]) -> Floats:
        warped = cv2.warpAffine(np.asarray(patch), self._back, self._size, flags=cv2.INTER_LINEAR)
        return np.asarray(warped, np.float32)
