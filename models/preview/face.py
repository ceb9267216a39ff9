"""Find faces, upright or tilted, by a cascade of OpenCV and the landmarks fitted to what it proposes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from models.arrays import F64, U8
from models.preview.geometry import (
    UNIT,
    Box,
    Crop,
    Point,
    align_eyes,
    compose_affine,
    invert_affine,
    transform_points,
    warp_smooth,
)
from models.preview.landmarks import JAW, Landmarks, fit_landmarks, make_usual_landmarks

_SMALLEST, _SURE = 40, 50
"""The side in pixels of the smallest face that is seen in a copy, and of one that is surely seen."""
_BORDER = 0.08
"""What is repeated around a copy, as a share of its longer side, for faces that the edge cuts."""
_ALIKE = 0.1
_REMEMBERED: dict[bytes, tuple[Face, ...]] = {}
_MOST_REMEMBERED = 4


@dataclass(frozen=True, slots=True)
class _Search:
    """A search of a copy of the picture: its longer side, tilts in degrees, and how the cascade looks there."""

    side: int
    tilts: tuple[int, ...]
    smallest: int = _SMALLEST
    step: float = 1.1
    border: float = 0.0
    cascade: str = "frontalface_alt2"


_SEARCHES = (
    _Search(640, (0,), border=_BORDER),
    _Search(640, (-20, 20), step=1.15),
    _Search(640, (0,), step=1.15, border=_BORDER, cascade="frontalface_alt"),
    _Search(640, (-40, 40), smallest=60),
    _Search(1600, (0,), step=1.15),
)


@dataclass(frozen=True, slots=True)
class Face:
    """A face in pixels. `box` is x, y, w, h; `eyes` are the left and the right one as seen."""

    box: Box
    eyes: tuple[Point, Point]
    landmarks: Landmarks

    @property
    def eye_distance(self) -> float:
        return math.dist(*self.eyes)

    @property
    def to_upright(self) -> F64:
        """The (2, 3) map from pixels to face units, with the eyes at (-50, 0) and (50, 0)."""
        return align_eyes(np.array(self.eyes))

    @property
    def upright_points(self) -> F64:
        """(23, 2): the landmarks in face units."""
        return transform_points(self.landmarks.points, self.to_upright)

    @property
    def outline(self) -> tuple[float, float]:
        """X of the left and the right edge of the face at the height of the mouth, in face units."""
        left, right = self.upright_points[JAW]
        return float(left[0]), float(right[0])


def find_faces(image: U8) -> tuple[Face, ...]:
    """Return all faces of a (h, w, 3) uint8 BGR picture from left to right, tilted ones too.

    What the cascade proposes counts if the landmarks fitted there look like those of a face:
    otherwise coins and cats are faces too. Small faces are searched in a larger copy when there is
    no larger one. The faces of the last pictures are remembered.
    """
    key = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() + bytes(str(image.shape), "ascii")
    if key not in _REMEMBERED:
        while len(_REMEMBERED) >= _MOST_REMEMBERED:
            _REMEMBERED.pop(next(iter(_REMEMBERED)))
        _REMEMBERED[key] = _search_faces(image)
    return _REMEMBERED[key]


def _search_faces(image: U8) -> tuple[Face, ...]:
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    found = [face for search in _SEARCHES[:2] for face in _find_in_copy(image, grey, search)]
    for search in _SEARCHES[2:]:
        if not found and (search.side == _SEARCHES[0].side or max(grey.shape) > _SEARCHES[0].side):
            found = _find_in_copy(image, grey, search)
    return tuple(sorted(_drop_duplicates(found), key=lambda face: face.box[0] + face.box[2] / 2))


def measure_smallest(width: int, height: int) -> int:
    """Return how wide a face must be, in pixels, to be found in a picture of this size."""
    return max(_SURE, math.ceil(_SURE * max(width, height) / _SEARCHES[-1].side))


def find_face_near(image: U8, eyes: F64) -> Face | None:
    """Return the face whose eyes are within a quarter of their distance from `eyes`, (2, 2) x and
    y, in a (h, w, 3) uint8 BGR picture, or None."""
    fitted = fit_landmarks(image, eyes, rough=True)
    return make_face(fitted.eyes, fitted) if fitted.likeness >= _ALIKE else None


def crop_upright(image: U8, face: Face, crop: Crop, pixels_per_unit: float) -> U8:
    """Return the crop of the face turned upright; the picture's edge is repeated outside of it."""
    affine = face.to_upright
    affine[:, 2] -= (crop.left, crop.top)
    size = (round(crop.width * pixels_per_unit), round(crop.height * pixels_per_unit))
    if face.eye_distance > 1.4 * UNIT * pixels_per_unit:
        return warp_smooth(image, affine * pixels_per_unit, size)
    cropped = cv2.warpAffine(
        image, affine * pixels_per_unit, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(cropped, np.uint8)


def choose_largest(faces: Sequence[Face]) -> Face:
    """Return the face with the largest box."""
    return max(faces, key=lambda face: face.box[2] * face.box[3])


@cache
def _load_cascade(name: str) -> cv2.CascadeClassifier:
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / f"haarcascade_{name}.xml"))


def _find_in_copy(image: U8, grey: U8, search: _Search) -> list[Face]:
    """Return what the cascade sees in a copy of `grey`, which is `image` without colours, and looks like a face.

    The histogram stays as it is: that of a small face before a plain wall would lose its face.
    """
    scale = min(1.0, search.side / max(grey.shape))
    small = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    border = round(search.border * max(small.shape))
    bordered = cv2.copyMakeBorder(small, *(border,) * 4, cv2.BORDER_REPLICATE)
    found = []
    for tilt in search.tilts:
        turned, back = _rotate(np.asarray(bordered, np.uint8), tilt)
        for box in _detect_boxes(turned, search):
            usual = (transform_points(_place_eyes(box), back) - border) / scale
            fitted = fit_landmarks(image, usual, rough=True)
            if fitted.likeness >= _ALIKE:
                found.append(make_face(fitted.eyes, fitted))
    return found


def _rotate(grey: U8, tilt_deg: float) -> tuple[U8, F64]:
    """Turn the picture about its middle, corners kept. Return it and the map back."""
    if not tilt_deg:
        return grey, np.eye(2, 3)
    h, w = grey.shape
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), tilt_deg, 1.0)
    wide = abs(turn[0, 0]) * w + abs(turn[0, 1]) * h
    high = abs(turn[0, 1]) * w + abs(turn[0, 0]) * h
    turn[:, 2] += ((wide - w) / 2, (high - h) / 2)
    size = (math.ceil(wide), math.ceil(high))
    turned = cv2.warpAffine(grey, turn, size, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8), invert_affine(np.asarray(turn, np.float64))


def _detect_boxes(grey: U8, search: _Search) -> list[Box]:
    smallest = (search.smallest, search.smallest)
    if min(grey.shape) < search.smallest:
        return []
    found = _load_cascade(search.cascade).detectMultiScale(grey, search.step, 1, minSize=smallest)
    return [(float(x), float(y), float(w), float(h)) for x, y, w, h in found]


def make_face(eyes: F64, landmarks: Landmarks) -> Face:
    """Return the face with the box that the cascade gives around such eyes, (2, 2) x and y."""
    (ax, ay), (bx, by) = eyes.tolist()
    side = math.dist((ax, ay), (bx, by)) / 0.4
    x, y = (ax + bx - side) / 2, (ay + by) / 2 - 0.38 * side
    return Face((x, y, side, side), ((ax, ay), (bx, by)), landmarks)


def move_face(face: Face, eyes: F64) -> Face:
    """Return the face in another frame, whose eyes, (2, 2) x and y, are there."""
    moved = make_face(eyes, face.landmarks)
    to_frame = compose_affine(face.to_upright, invert_affine(moved.to_upright))
    points = transform_points(face.landmarks.points, to_frame)
    return replace(moved, landmarks=replace(face.landmarks, points=points))


def shift_face(face: Face, origin: Point) -> Face:
    """Return the face in a part of its picture whose first pixel is `origin`, x and y."""
    x, y, w, h = face.box
    left, right = ((ex - origin[0], ey - origin[1]) for ex, ey in face.eyes)
    landmarks = replace(face.landmarks, points=face.landmarks.points - origin)
    return Face((x - origin[0], y - origin[1], w, h), (left, right), landmarks)


def make_face_in_box(box: Box) -> Face:
    """Return a face that fills a box of x, y, w, h, with its eyes where they usually are."""
    eyes = _place_eyes(box)
    return Face(box, eyes, make_usual_landmarks(np.array(eyes)))


def _place_eyes(box: Box) -> tuple[Point, Point]:
    x, y, w, h = box
    return (x + 0.3 * w, y + 0.38 * h), (x + 0.7 * w, y + 0.38 * h)


def _drop_duplicates(faces: Sequence[Face]) -> list[Face]:
    """Keep one face for each place: the one most like a face."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: face.landmarks.likeness, reverse=True):
        if all(_are_apart(face.box, other.box) for other in kept):
            kept.append(face)
    return kept


def _are_apart(a: Box, b: Box) -> bool:
    dx = abs(a[0] + a[2] / 2 - b[0] - b[2] / 2)
    dy = abs(a[1] + a[3] / 2 - b[1] - b[3] / 2)
    return math.hypot(dx, dy) > 0.5 * max(a[2], b[2])
