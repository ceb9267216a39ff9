"""Points, affine maps and parts of a picture; a face has its own units, see UNIT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.arrays import F64, U8, Floats

Point = tuple[float, float]
Box = tuple[float, float, float, float]
Maps = tuple[Floats, Floats]
Rect = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels."""

UNIT = 100.0
"""The eye distance in face units, in which all geometry of a face is given."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle in face units."""

    left: float
    top: float
    width: float
    height: float


def transform_points(points: Sequence[Point] | F64, affine: F64) -> F64:
    """Return (n, 2) points moved by a (2, 3) affine map."""
    return np.asarray(points, np.float64) @ affine[:, :2].T + affine[:, 2]


def invert_affine(affine: F64) -> F64:
    """Return the inverse of a (2, 3) affine map."""
    return np.asarray(cv2.invertAffineTransform(affine), np.float64)


def compose_affine(first: F64, second: F64) -> F64:
    """Return the (2, 3) map that applies `first`, then `second`."""
    return np.asarray(second @ np.vstack([first, [0, 0, 1]]))


def align_ends(left: F64, right: F64) -> F64:
    """Return the (2, 3) map that puts two points of a picture at (-1, 0) and (1, 0)."""
    (x0, y0), (x1, y1) = left.tolist(), right.tolist()
    across, down = (x1 - x0) / 2, (y1 - y0) / 2
    squared = max(across * across + down * down, 1.0)
    c, s, x, y = across / squared, down / squared, (x0 + x1) / 2, (y0 + y1) / 2
    return np.array([[c, s, -c * x - s * y], [-s, c, s * x - c * y]])


def align_eyes(eyes: F64) -> F64:
    """Return the (2, 3) map from pixels to face units, with the eyes at (-50, 0) and (50, 0)."""
    return align_ends(eyes[0], eyes[1]) * (UNIT / 2)


def warp_smooth(image: U8, affine: F64, size: tuple[int, int]) -> U8:
    """Return the picture moved by a (2, 3) affine map, without aliasing where it shrinks; edges are
    repeated."""
    shrink = math.hypot(affine[0, 0], affine[1, 0])
    if shrink < 0.7:
        w, h = size
        points = transform_points([(0, 0), (w, 0), (0, h), (w, h)], invert_affine(affine))
        (x0, y0), (x1, y1) = np.floor(points.min(0)).astype(int) - 4, np.ceil(points.max(0)).astype(int) + 4
        x0, y0 = max(0, min(x0, image.shape[1] - 1)), max(0, min(y0, image.shape[0] - 1))
        part = image[y0 : max(y0 + 1, y1), x0 : max(x0 + 1, x1)]
        smaller = max(1, round(part.shape[1] * shrink)), max(1, round(part.shape[0] * shrink))
        across, down = part.shape[1] / smaller[0], part.shape[0] / smaller[1]
        image = np.asarray(cv2.resize(part, smaller, interpolation=cv2.INTER_AREA), np.uint8)
        back = np.array([[across, 0, x0 + (across - 1) / 2], [0, down, y0 + (down - 1) / 2]])
        affine = compose_affine(back, affine)
    return np.asarray(cv2.warpAffine(image, affine, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def compute_rect(to_upright: F64, crop: Crop, size: tuple[int, int]) -> Rect:
    """Return the pixels around a crop of a face, cut to a picture of (width, height)."""
    right, bottom = crop.left + crop.width, crop.top + crop.height
    corners = [(crop.left, crop.top), (right, crop.top), (crop.left, bottom), (right, bottom)]
    placed = transform_points(corners, invert_affine(to_upright))
    (x0, y0), (x1, y1) = np.floor(placed.min(0)), np.ceil(placed.max(0))
    x0, y0 = min(max(0, int(x0)), size[0]), min(max(0, int(y0)), size[1])
    return x0, y0, max(x0, min(size[0], int(x1))), max(y0, min(size[1], int(y1)))


def to_slices(rect: Rect, origin: tuple[int, int] = (0, 0)) -> tuple[slice, slice]:
    """Return rows and columns of `rect` in an array whose first pixel is `origin`, x and y."""
    x0, y0, x1, y1 = rect
    return slice(y0 - origin[1], y1 - origin[1]), slice(x0 - origin[0], x1 - origin[0])


def join_rects(rects: Sequence[Rect]) -> Rect:
    """Return the smallest rectangle around all.

    >>> join_rects([(2, 3, 5, 6), (1, 4, 3, 9)])
    (1, 3, 5, 9)
    """
    left, top, right, bottom = zip(*rects, strict=True)
    return min(left), min(top), max(right), max(bottom)


def widen_rect(rect: Rect, around: float) -> Rect:
    """Return the rectangle with at least so many pixels more on each side; it may leave the picture.

    >>> widen_rect((2, 3, 5, 6), 1.5)
    (0, 1, 7, 8)
    """
    x0, y0, x1, y1 = rect
    more = math.ceil(around)
    return x0 - more, y0 - more, x1 + more, y1 + more


def make_grid(rect: Rect) -> Maps:
    """Return (h, w) float32 x and y of the pixels of `rect`: the map without movement."""
    x0, y0, x1, y1 = rect
    x, y = np.meshgrid(np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32))
    return x, y


def transform_grid(affine: F64, x: Floats, y: Floats) -> Maps:
    """Return points moved by a (2, 3) affine map, in float32."""
    a = affine.astype(np.float32)
    return a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]


def ramp(values: Floats, low: float, high: float) -> Floats:
    """Return float32 that rise smoothly from 0 at `low` to 1 at `high`, which may be the lower one."""
    t = np.minimum(np.maximum((values - low) / (high - low), 0), 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
