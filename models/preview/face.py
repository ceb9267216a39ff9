"""Find faces, upright or tilted, by a cascade of OpenCV and the landmarks fitted to what it proposes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
from models.preview.landmarks import Landmarks, fit_landmarks, make_usual_landmarks

_SEARCHES = ((640, (0, -20, 20)), (640, (-40, 40)), (1600, (0, -20, 20)))
"""The longer side of the copy that is searched, and the tilts in degrees, in turn."""
_SMALLEST = 40
_ALIKE = 0.1


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


def find_faces(image: U8) -> tuple[Face, ...]:
    """Return all faces of a (h, w, 3) uint8 BGR picture from left to right, tilted ones too.

    What the cascade proposes counts if the landmarks fitted there look like those of a face:
    otherwise coins and cats are faces too. Small faces are searched in a larger copy when there is
    no larger one.
    """
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    for side, tilts in _SEARCHES if max(grey.shape) > _SEARCHES[0][0] else _SEARCHES[:2]:
        scale = min(1.0, side / max(grey.shape))
        small = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        equal = np.asarray(cv2.equalizeHist(small), np.uint8)
        found = [face for tilt in tilts for face in _find_at_tilt(image, equal, tilt)]
        if found:
            return tuple(sorted(_drop_duplicates(found), key=lambda face: face.box[0] + face.box[2] / 2))
    return ()


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


def _find_at_tilt(image: U8, equal: U8, tilt_deg: float) -> Iterator[Face]:
    """Search `equal`, a smaller grey copy of `image` with an equalised histogram, turned by `tilt_deg`."""
    turned, back = _rotate(equal, tilt_deg)
    scale = image.shape[1] / equal.shape[1]
    for x, y, w, h in _detect_boxes(turned):
        usual = transform_points(_place_eyes((x, y, w, h)), back)
        fitted = fit_landmarks(image, usual * scale, rough=True)
        if fitted.likeness >= _ALIKE:
            yield make_face(fitted.eyes, fitted)


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


def _detect_boxes(grey: U8) -> list[tuple[int, int, int, int]]:
    if min(grey.shape) < _SMALLEST:
        return []
    found = _load_cascade("frontalface_alt2").detectMultiScale(grey, 1.1, 1, minSize=(_SMALLEST, _SMALLEST))
    return [(int(x), int(y), int(w), int(h)) for x, y, w, h in found]


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
