"""Sway and blinks, as maps from pixels of the result to their source in the photo."""

from __future__ import annotations

import math

import cv2
import numpy as np

from models.arrays import F64, U8, Floats
from models.preview.face import Face
from models.preview.geometry import Crop, Maps, compute_rect, invert_affine, make_grid, ramp, transform_grid
from models.preview.landmarks import LEFT_EYE, RIGHT_EYE

_COARSE = 8
_CORE = (105.0, 165.0)
_REACH = (185.0, 260.0)
_MIDDLE_Y = 50.0
_BROW = 6.0
"""From the middle of a brow to its lower edge, in face units."""
_LASHES = 3.0
_SHUT = 4.0


class HeadField:
    """The part `rect` of a picture of (width, height) pixels that moves with the head, and its
    source.

    Head and neck move as one; the movement fades out around them, so that shoulders and background
    do not move.
    """

    def __init__(self, face: Face, size: tuple[int, int]) -> None:
        reach_x, reach_y = _REACH
        self.rect = compute_rect(face.to_upright, Crop(-reach_x, _MIDDLE_Y - reach_y, 2 * reach_x, 2 * reach_y), size)
        self._x, self._y = transform_grid(face.to_upright, *self._make_nodes())
        self._y -= np.float32(_MIDDLE_Y)
        self._weight = ramp(np.abs(self._x), reach_x, _CORE[0]) * ramp(np.abs(self._y), reach_y, _CORE[1])
        self._bulge = np.clip(1 - (self._x / 88) ** 2 - ((self._y + 10) / 125) ** 2, 0, None)
        self._to_pixels = invert_affine(face.to_upright)[:, :2].astype(np.float32)
        self._grid = make_grid(self.rect)

    def compute_maps(self, pose: Floats | None) -> Maps:
        """Return (h, w) source x and y of `rect`. `pose` is a row of `make_sway`, or None."""
        if pose is None:
            return self._grid[0].copy(), self._grid[1].copy()
        x0, y0, x1, y1 = self.rect
        full = cv2.resize(self._compute_shifts(pose), None, fx=_COARSE, fy=_COARSE, interpolation=cv2.INTER_LINEAR)
        half = _COARSE // 2  # cv2.resize puts a node into the middle of its cell
        shifts = full[half : half + y1 - y0, half : half + x1 - x0]
        return self._grid[0] - shifts[..., 0], self._grid[1] - shifts[..., 1]

    def _make_nodes(self) -> Maps:
        x0, y0, x1, y1 = self.rect
        across, down = np.arange(-(-(x1 - x0) // _COARSE) + 2), np.arange(-(-(y1 - y0) // _COARSE) + 2)
        x, y = np.meshgrid(x0 - 0.5 + _COARSE * across, y0 - 0.5 + _COARSE * down)
        return x.astype(np.float32), y.astype(np.float32)

    def _compute_shifts(self, pose: Floats) -> Floats:
        """Return the shift of the nodes in pixels: nose and brow move the most."""
        roll, x, y, turn, nod = (float(value) for value in pose)
        angle = math.radians(roll)
        dx = (-angle * (self._y - 150) + x + turn * self._bulge) * self._weight
        dy = (angle * self._x + y + nod * self._bulge) * self._weight
        return np.asarray(np.stack([dx, dy], -1) @ self._to_pixels.T, np.float32)


class Lid:
    """The eyelid of one eye of a face in a picture of (width, height), as its landmarks have it.

    `points` (4, 2): left corner, edge of the upper lid, right corner, edge of the lower lid, and
    `brow_y`, all in face units.
    """

    def __init__(self, face: Face, points: F64, brow_y: float, size: tuple[int, int]) -> None:
        left, upper, right, lower = points
        self._middle, self._half = (left + right) / 2, max(6.0, float(right[0] - left[0]) / 2)
        self._slope = float(right[1] - left[1]) / 2 / self._half
        self._upper = float(np.clip(upper[1] - self._middle[1], -16, -2))
        self._lower = float(np.clip(lower[1] - self._middle[1], 1, 11))
        self._skin = float(np.clip(self._upper - (self._middle[1] + self._upper - brow_y - _BROW) / 2, -30, -5))
        x, y, reach = float(self._middle[0]), float(self._middle[1]), 1.3 * self._half
        top, bottom = self._upper + self._skin - 6, self._lower + 6
        self.rect = compute_rect(face.to_upright, Crop(x - reach, y + top, 2 * reach, bottom - top), size)
        self._to_upright = face.to_upright
        self._down = invert_affine(face.to_upright)[:, 1].astype(np.float32)

    def lower(self, maps: Maps, shut: float) -> Floats:
        """Pull the skin above the eye over it, in the maps of `rect`. Return (h, w) brightness."""
        x, y = transform_grid(self._to_upright, *maps)
        across = (x - np.float32(self._middle[0])) / np.float32(self._half)
        y = y - np.float32(self._middle[1]) - np.float32(self._slope) * (x - np.float32(self._middle[0]))
        lens = np.clip(1 - across**2, 0, 1)
        open_at, shut_at = self._upper * lens - _LASHES, self._lower * lens
        edge, skin = open_at + shut * (shut_at - open_at + _LASHES), self._skin + 0.3 * self._upper * lens
        inside = np.clip(6 * np.clip(1.15 - np.abs(across), 0, 1), 0, 1)
        over = np.clip((edge - y) / 1.2 + 0.5, 0, 1) * np.clip((y - skin) / 3, 0, 1) * inside
        pulled = over * (y - skin) * (1 - np.minimum(1, (open_at - skin) / np.maximum(edge - skin, 1e-3)))
        np.subtract(maps[0], self._down[0] * pulled, out=maps[0])
        np.subtract(maps[1], self._down[1] * pulled, out=maps[1])
        lash = np.exp(-(((y - edge) / 1.8) ** 2)) * np.sqrt(lens) * min(1.0, 2 * shut)
        return np.asarray(1 - 0.36 * lash, np.float32)


def make_lids(face: Face, size: tuple[int, int]) -> tuple[Lid, ...]:
    """Return the lids of both eyes; none where they are shut already."""
    points = face.upright_points
    left, right = points[LEFT_EYE], points[RIGHT_EYE]
    if min(left[3, 1] - left[1, 1], right[3, 1] - right[1, 1]) < _SHUT:
        return ()
    return Lid(face, left, points[21, 1], size), Lid(face, right, points[22, 1], size)


def shade(image: U8, light: Floats) -> None:
    """Darken (h, w, 3) uint8 in place; `light` is (h, w), 1 keeps a pixel."""
    image[:] = (image * light[..., None]).astype(np.uint8)
