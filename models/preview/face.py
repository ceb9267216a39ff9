"""Find faces, upright or tilted, by the cascades of OpenCV, without a downloaded model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from models.arrays import F64, U8

Point = tuple[float, float]
Box = tuple[float, float, float, float]

UNIT = 100.0
"""The eye distance in face units, in which all geometry of a face is given."""

_SEARCH_SIDE = 640
_SMALLEST = 40
_FACE = 85
_TILTS = (0, -20, 20)
_STEEP_TILTS = (-40, 40)
_EYE_CROP = 240


@dataclass(frozen=True, slots=True)
class Face:
    """A face in pixels. `box` is x, y, w, h; `eyes` are the left and the right one as seen."""

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
    def to_upright(self) -> F64:
        """The (2, 3) map from pixels to face units, with the eyes at (-50, 0) and (50, 0)."""
        (ax, ay), (bx, by) = self.eyes
        k = UNIT / self.eye_distance**2
        c, s = (bx - ax) * k, (by - ay) * k
        mx, my = (ax + bx) / 2, (ay + by) / 2
        return np.array([[c, s, -c * mx - s * my], [-s, c, s * mx - c * my]])

    def scale(self, x: float, y: float) -> Face:
        """Return the face in a picture resized by these factors."""
        left, top, w, h = self.box
        (ax, ay), (bx, by) = self.eyes
        return Face(
            (left * x, top * y, w * x, h * y), ((ax * x, ay * y), (bx * x, by * y)), self.eyes_found, self.strength
        )


def find_faces(image: U8) -> tuple[Face, ...]:
    """Return all faces of a (h, w, 3) uint8 BGR picture from left to right, tilted ones too.

    A detection counts only after three cascades confirmed it many times; otherwise coins and cats
    are faces too.
    """
    scale = min(1.0, _SEARCH_SIDE / max(image.shape[:2]))
    small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    grey = _equalize_grey(small)
    for tilts in (_TILTS, _STEEP_TILTS):
        found = [face for tilt in tilts for face in _find_at_tilt(grey, tilt)]
        if found:
            faces = (face.scale(1 / scale, 1 / scale) for face in _drop_duplicates(found))
            return tuple(sorted(faces, key=lambda face: face.box[0] + face.box[2] / 2))
    return ()


def find_face_near(image: U8, face: Face) -> Face | None:
    """Find a face near its place in another frame: much faster than `find_faces`."""
    near = Crop(-200, -160, 400, 440)
    grey = _equalize_grey(crop_upright(image, face, near, 0.8))
    to_crop = face.to_upright
    to_crop[:, 2] -= (near.left, near.top)
    back = invert_affine(to_crop * 0.8)
    middle = (near.width / 2 * 0.8, 0.8 * (25 - near.top))
    boxes = [box for box in _detect_boxes("frontalface_alt2", grey) if 0.6 < box[2] / (0.8 * 210) < 1.6]
    if not boxes:
        return None
    box = min(boxes, key=lambda b: math.dist((b[0] + b[2] / 2, b[1] + b[3] / 2), middle))
    return _make_face(box, _find_eyes(grey, box), back)


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle in face units."""

    left: float
    top: float
    width: float
    height: float


def crop_upright(image: U8, face: Face, crop: Crop, pixels_per_unit: float) -> U8:
    """Return the crop of the face turned upright; the picture's edge is repeated outside of it."""
    affine = face.to_upright
    affine[:, 2] -= (crop.left, crop.top)
    size = (round(crop.width * pixels_per_unit), round(crop.height * pixels_per_unit))
    shrinks = face.eye_distance > 1.5 * UNIT * pixels_per_unit
    flags = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    cropped = cv2.warpAffine(image, affine * pixels_per_unit, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cropped, np.uint8)


def choose_largest(faces: Sequence[Face]) -> Face:
    """Return the face with the largest box."""
    return max(faces, key=lambda face: face.box[2] * face.box[3])


def transform_points(points: Iterable[Point], affine: F64) -> F64:
    """Return (n, 2) points moved by a (2, 3) affine map."""
    return np.asarray(list(points), np.float64) @ affine[:, :2].T + affine[:, 2]


def invert_affine(affine: F64) -> F64:
    """Return the inverse of a (2, 3) affine map."""
    return np.asarray(cv2.invertAffineTransform(affine), np.float64)


def _equalize_grey(image: U8) -> U8:
    """Return (h, w) grey with an equalised histogram, of (h, w, 3) BGR."""
    return np.asarray(cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)), np.uint8)


@cache
def _load_cascade(name: str) -> cv2.CascadeClassifier:
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / f"haarcascade_{name}.xml"))


def _find_at_tilt(grey: U8, tilt_deg: float) -> Iterator[Face]:
    turned, back = _rotate(grey, tilt_deg)
    for box in _detect_boxes("frontalface_alt2", turned):
        face = _make_face(box, _find_eyes(turned, box), back)
        strength = _count_detections(grey, face)
        if strength >= _FACE and (face.eyes_found or not tilt_deg):
            yield replace(face, strength=strength)


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


def _detect_boxes(name: str, grey: U8) -> list[tuple[int, int, int, int]]:
    if min(grey.shape) < _SMALLEST:
        return []
    found = _load_cascade(name).detectMultiScale(grey, 1.1, 3, minSize=(_SMALLEST, _SMALLEST))
    return [(int(x), int(y), int(w), int(h)) for x, y, w, h in found]


def _count_detections(grey: U8, face: Face) -> int:
    """Count how often three cascades detect the face in an upright copy of it, in slightly shifted
    windows.

    Faces were detected 150 to 340 times, half a face 96 times, cats, coins and clouds at most 65
    times.
    """
    crop = crop_upright(grey, face, Crop(-220, -170, 440, 480), 110 / (face.box[2] / face.eye_distance * UNIT))
    crop = np.asarray(cv2.equalizeHist(crop), np.uint8)
    seen = 0
    for name in ("frontalface_alt2", "frontalface_alt", "frontalface_default"):
        _, times = _load_cascade(name).detectMultiScale2(crop, 1.05, 1, minSize=(70, 70), maxSize=(160, 160))
        seen += max((int(n) for n in times), default=0)
    return seen


def _find_eyes(grey: U8, box: tuple[int, int, int, int]) -> tuple[Point, Point] | None:
    """Return both eyes in pixels, the pair of eye boxes most like eyes in a face, or None."""
    x, y, w, h = box
    zoom = _EYE_CROP / w
    top = y + int(0.15 * h)
    part = grey[top : y + int(0.62 * h), x : x + w]
    crop = np.asarray(cv2.resize(part, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC), np.uint8)
    centres = [
        (a + side / 2, b + side / 2)
        for name in ("eye_tree_eyeglasses", "eye")
        for a, b, side, _ in _load_cascade(name).detectMultiScale(crop, 1.05, 3, minSize=(30, 30), maxSize=(90, 90))
    ]
    pairs = [(a, b) for a, b in product(centres, centres) if _pair_cost(a, b) < 1.0]
    if not pairs:
        return None
    best = min(pairs, key=lambda pair: _pair_cost(*pair))
    left, right = (_find_pupil(crop, _average_near(eye, centres)) for eye in best)
    return (left[0] / zoom + x, left[1] / zoom + top), (right[0] / zoom + x, right[1] / zoom + top)


def _pair_cost(left: Point, right: Point) -> float:
    """Return the distance of a pair from usual eyes in a face 240 pixels wide, a pair below 1."""
    distance, drop = right[0] - left[0], right[1] - left[1]
    middle, height = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    return math.hypot((distance - 98) / 40, drop / 36, (middle - 120) / 40, (height - 56) / 40)


def _average_near(eye: Point, centres: Sequence[Point]) -> Point:
    near = [centre for centre in centres if math.dist(eye, centre) < 20]
    return sum(x for x, _ in near) / len(near), sum(y for _, y in near) / len(near)


def _find_pupil(grey: U8, eye: Point, reach: int = 14) -> Point:
    """Return the middle of the dark pixels around an eye's centre."""
    x, y = round(eye[0]), round(eye[1])
    left, top = max(0, x - reach), max(0, y - reach)
    patch = grey[top : y + reach + 1, left : x + reach + 1].astype(np.float32)
    dark = np.clip(np.percentile(patch, 30) - patch, 0, None)
    if not dark.any():
        return eye
    rows, columns = np.mgrid[: patch.shape[0], : patch.shape[1]]
    return left + float((columns * dark).sum() / dark.sum()), top + float((rows * dark).sum() / dark.sum())


def _make_face(box: tuple[int, int, int, int], eyes: tuple[Point, Point] | None, back: F64) -> Face:
    x, y, w, h = box
    middle = transform_points([(x + w / 2, y + h / 2)], back)[0]
    where = eyes or _place_eyes(box)
    left, right = ((float(a), float(b)) for a, b in transform_points(where, back))
    return Face((middle[0] - w / 2, middle[1] - h / 2, w, h), (left, right), eyes is not None)


def make_face_in_box(box: Box) -> Face:
    """Return a face that fills a box of x, y, w, h, with its eyes where they usually are."""
    return Face(box, _place_eyes(box), eyes_found=False)


def _place_eyes(box: Box) -> tuple[Point, Point]:
    x, y, w, h = box
    return (x + 0.3 * w, y + 0.38 * h), (x + 0.7 * w, y + 0.38 * h)


def _drop_duplicates(faces: Sequence[Face]) -> list[Face]:
    """Keep one face for each place: the one with eyes and the most detections."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: (face.eyes_found, face.strength), reverse=True):
        if all(_are_apart(face.box, other.box) for other in kept):
            kept.append(face)
    return kept


def _are_apart(a: Box, b: Box) -> bool:
    dx = abs(a[0] + a[2] / 2 - b[0] - b[2] / 2)
    dy = abs(a[1] + a[3] / 2 - b[1] - b[3] / 2)
    return math.hypot(dx, dy) > 0.5 * max(a[2], b[2])
