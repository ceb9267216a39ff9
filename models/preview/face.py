"""Faces in a picture, upright or tilted, by the cascades that OpenCV ships. No downloaded model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]
Affine = npt.NDArray[Any]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

UNIT = 100.0
"""Geometry of a face is told in units of a hundredth of its eye distance."""

_SEARCH_SIDE = 640
_SMALLEST = 40
_FACE = 85
_TILTS = (0, -20, 20)
_STEEP_TILTS = (-40, 40)
_EYE_CROP = 240


@dataclass(frozen=True, slots=True)
class Face:
    """A face in pixels of its picture. `box` is x, y, w, h; `eyes` are the left and the right as one sees them."""

    box: Box
    eyes: tuple[Point, Point]
    eyes_found: bool
    strength: int = 0

    @property
    def eye_distance(self) -> float:
        return math.dist(*self.eyes)

    @property
    def roll_deg(self) -> float:
        (ax, ay), (bx, by) = self.eyes
        return math.degrees(math.atan2(by - ay, bx - ax))

    @property
    def to_upright(self) -> Affine:
        """(2, 3) pixel -> face units: the middle of the eyes is (0, 0), they lie at (-50, 0) and (50, 0)."""
        (ax, ay), (bx, by) = self.eyes
        k = UNIT / self.eye_distance**2
        c, s = (bx - ax) * k, (by - ay) * k
        mx, my = (ax + bx) / 2, (ay + by) / 2
        return np.array([[c, s, -c * mx - s * my], [-s, c, s * mx - c * my]])

    def scaled(self, x: float, y: float) -> Face:
        """The same face in a picture resized by these factors."""
        left, top, w, h = self.box
        (ax, ay), (bx, by) = self.eyes
        return Face(
            (left * x, top * y, w * x, h * y), ((ax * x, ay * y), (bx * x, by * y)), self.eyes_found, self.strength
        )


def find_faces(image: Image) -> tuple[Face, ...]:
    """All faces of a (h, w, 3) BGR picture from left to right; tilted ones are found in turned copies of it.

    What one cascade takes for a face has to be seen again and again by three: else coins and cats are faces too.
    """
    scale = min(1.0, _SEARCH_SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    grey = cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
    for tilts in (_TILTS, _STEEP_TILTS):
        found = [face for tilt in tilts for face in _at_tilt(grey, tilt)]
        if found:
            faces = (face.scaled(1 / scale, 1 / scale) for face in _without_doubles(found))
            return tuple(sorted(faces, key=lambda face: face.box[0] + face.box[2] / 2))
    return ()


def find_near(image: Image, face: Face) -> Face | None:
    """The face again, near where it was in another frame, upright or as tilted as it was; much faster than a search."""
    near = Crop(-200, -160, 400, 440)
    grey = cv2.equalizeHist(cv2.cvtColor(upright(image, face, near, 0.8), cv2.COLOR_BGR2GRAY))
    there = face.to_upright
    there[:, 2] -= (near.left, near.top)
    back = cv2.invertAffineTransform(there * 0.8)
    middle = (near.width / 2 * 0.8, 0.8 * (25 - near.top))
    boxes = [box for box in _boxes("frontalface_alt2", grey) if 0.6 < box[2] / (0.8 * 210) < 1.6]
    if not boxes:
        return None
    box = min(boxes, key=lambda b: math.dist((b[0] + b[2] / 2, b[1] + b[3] / 2), middle))
    return _placed(box, _find_eyes(grey, box), back)


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle in face units."""

    left: float
    top: float
    width: float
    height: float


def upright(image: Image, face: Face, crop: Crop, pixels_per_unit: float) -> Image:
    """The crop of the face as it would look upright; what lies outside the picture repeats its edge."""
    affine = face.to_upright
    affine[:, 2] -= (crop.left, crop.top)
    size = (round(crop.width * pixels_per_unit), round(crop.height * pixels_per_unit))
    shrinks = face.eye_distance > 1.5 * UNIT * pixels_per_unit
    flags = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.warpAffine(image, affine * pixels_per_unit, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def largest(faces: Sequence[Face]) -> Face:
    return max(faces, key=lambda face: face.box[2] * face.box[3])


def transform(points: Iterable[Point], affine: Affine) -> npt.NDArray[Any]:
    """(n, 2) points moved by a (2, 3) affine map."""
    return np.asarray(list(points), np.float64) @ affine[:, :2].T + affine[:, 2]


@cache
def _cascade(name: str) -> cv2.CascadeClassifier:
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / f"haarcascade_{name}.xml"))


def _at_tilt(grey: Image, tilt_deg: float) -> Iterator[Face]:
    turned, back = _turned(grey, tilt_deg)
    for box in _boxes("frontalface_alt2", turned):
        face = _placed(box, _find_eyes(turned, box), back)
        strength = _strength(grey, face)
        if strength >= _FACE and (face.eyes_found or not tilt_deg):
            yield replace(face, strength=strength)


def _turned(grey: Image, tilt_deg: float) -> tuple[Image, Affine]:
    """The picture turned about its middle, corners kept, and the map back."""
    if not tilt_deg:
        return grey, np.eye(2, 3)
    h, w = grey.shape
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), tilt_deg, 1.0)
    wide = abs(turn[0, 0]) * w + abs(turn[0, 1]) * h
    high = abs(turn[0, 1]) * w + abs(turn[0, 0]) * h
    turn[:, 2] += ((wide - w) / 2, (high - h) / 2)
    size = (math.ceil(wide), math.ceil(high))
    return cv2.warpAffine(grey, turn, size, borderMode=cv2.BORDER_REPLICATE), cv2.invertAffineTransform(turn)


def _boxes(name: str, grey: Image) -> list[tuple[int, int, int, int]]:
    if min(grey.shape) < _SMALLEST:
        return []
    found = _cascade(name).detectMultiScale(grey, 1.1, 3, minSize=(_SMALLEST, _SMALLEST))
    return [(int(x), int(y), int(w), int(h)) for x, y, w, h in found]


def _strength(grey: Image, face: Face) -> int:
    """How often three cascades see the face in an upright copy of it, in windows a little apart.

    Faces were seen 150 to 340 times, half a face 96 times, cats, coins and clouds at most 65 times.
    """
    crop = upright(grey, face, Crop(-220, -170, 440, 480), 110 / (face.box[2] / face.eye_distance * UNIT))
    crop = cv2.equalizeHist(crop)
    seen = 0
    for name in ("frontalface_alt2", "frontalface_alt", "frontalface_default"):
        _, times = _cascade(name).detectMultiScale2(crop, 1.05, 1, minSize=(70, 70), maxSize=(160, 160))
        seen += max((int(n) for n in times), default=0)
    return seen


def _find_eyes(grey: Image, box: tuple[int, int, int, int]) -> tuple[Point, Point] | None:
    """Both eyes in pixels, or None: the pair of eye boxes that sits most like eyes do in a face."""
    x, y, w, h = box
    zoom = _EYE_CROP / w
    top = y + int(0.15 * h)
    crop = cv2.resize(grey[top : y + int(0.62 * h), x : x + w], None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    centres = [
        (a + side / 2, b + side / 2)
        for name in ("eye_tree_eyeglasses", "eye")
        for a, b, side, _ in _cascade(name).detectMultiScale(crop, 1.05, 3, minSize=(30, 30), maxSize=(90, 90))
    ]
    pairs = [(a, b) for a, b in product(centres, centres) if _oddness(a, b) < 1.0]
    if not pairs:
        return None
    best = min(pairs, key=lambda pair: _oddness(*pair))
    left, right = (_pupil(crop, _mean_near(eye, centres)) for eye in best)
    return (left[0] / zoom + x, left[1] / zoom + top), (right[0] / zoom + x, right[1] / zoom + top)


def _oddness(left: Point, right: Point) -> float:
    """How far a pair is from two eyes at 30 % and 70 % of a face 240 pixels wide, level, 38 % down; 1 is no pair."""
    distance, drop = right[0] - left[0], right[1] - left[1]
    middle, height = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    return math.hypot((distance - 98) / 40, drop / 36, (middle - 120) / 40, (height - 56) / 40)


def _mean_near(eye: Point, centres: Sequence[Point]) -> Point:
    near = [centre for centre in centres if math.dist(eye, centre) < 20]
    return sum(x for x, _ in near) / len(near), sum(y for _, y in near) / len(near)


def _pupil(grey: Image, eye: Point, reach: int = 14) -> Point:
    """The middle of the dark around an eye's centre."""
    x, y = round(eye[0]), round(eye[1])
    left, top = max(0, x - reach), max(0, y - reach)
    patch = grey[top : y + reach + 1, left : x + reach + 1].astype(np.float32)
    dark = np.clip(np.percentile(patch, 30) - patch, 0, None)
    if not dark.any():
        return eye
    rows, columns = np.mgrid[: patch.shape[0], : patch.shape[1]]
    return left + float((columns * dark).sum() / dark.sum()), top + float((rows * dark).sum() / dark.sum())


def _placed(box: tuple[int, int, int, int], eyes: tuple[Point, Point] | None, back: Affine) -> Face:
    x, y, w, h = box
    middle = transform([(x + w / 2, y + h / 2)], back)[0]
    where = eyes or ((x + 0.3 * w, y + 0.38 * h), (x + 0.7 * w, y + 0.38 * h))
    left, right = ((float(a), float(b)) for a, b in transform(where, back))
    return Face((middle[0] - w / 2, middle[1] - h / 2, w, h), (left, right), eyes is not None)


def _without_doubles(faces: Sequence[Face]) -> list[Face]:
    """One face for each place: the one with eyes, and seen most often."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: (face.eyes_found, face.strength), reverse=True):
        if all(_apart(face.box, other.box) for other in kept):
            kept.append(face)
    return kept


def _apart(a: Box, b: Box) -> bool:
    dx = abs(a[0] + a[2] / 2 - b[0] - b[2] / 2)
    dy = abs(a[1] + a[3] / 2 - b[1] - b[3] / 2)
    return math.hypot(dx, dy) > 0.5 * max(a[2], b[2])
