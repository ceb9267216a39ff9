"""Fit eyes, lips and chin to a detected face by linear regressions on gradients.

The tables in landmarks.npz were fitted by benchmarks/fit_landmarks.py to the landmarks that a face
mesh gives in public portraits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from models.arrays import F32, F64, I8, U8
from models.preview.geometry import align_ends, align_eyes, compose_affine, invert_affine, transform_points, warp_smooth

# fmt: off
POINTS = (
    "left_outer", "left_top", "left_inner", "left_bottom", "right_inner", "right_top", "right_outer", "right_bottom",
    "lips_left", "lips_right", "lips_top", "gap_top", "gap_bottom", "lips_bottom",
    "chin", "chin_left", "chin_right", "jaw_left", "jaw_right", "nose", "nose_base", "left_brow", "right_brow",
)
"""Left and right as seen."""
_USUAL = (
    (-72, -2), (-54, -9), (-28, 2), (-51, 5), (28, 2), (54, -9), (72, -2), (51, 5),
    (-42, 107), (42, 107), (0, 96), (0, 110), (0, 110), (0, 131),
    (0, 182), (-36, 173), (36, 173), (-87, 124), (87, 124), (0, 66), (0, 75), (-67, -40), (67, -40),
)
# fmt: on
LEFT_EYE, RIGHT_EYE, LIPS, JAW = slice(0, 4), slice(4, 8), slice(8, 14), slice(17, 19)
NOSE_BASE = POINTS.index("nose_base")
MIRRORED = (6, 5, 4, 7, 2, 1, 0, 3, 9, 8, 10, 11, 12, 13, 14, 16, 15, 18, 17, 19, 20, 22, 21)
"""The number of each point in a mirrored picture."""

GUESSED = -1.0

TABLES_FILE = Path(__file__).with_name("landmarks.npz")
_CELL = 8
_TALL_GAP, _TALL_STEPS = 0.55, 4
"""How far the lips of a tall mouth are apart in the picture that is made lower, in half widths."""
_COLOUR_SCALES = (0.2 / 30, 0.2 / 8, 0.2 / 8)


@dataclass(frozen=True, slots=True)
class Window:
    """Where features are taken: a rectangle in the units of an affine map, and its size in
    pixels."""

    left: float
    top: float
    scale: float
    width: int
    height: int

    def cut(self, image: U8, affine: F64) -> U8:
        """Return the pixels of the window in a (h, w, 3) uint8 BGR picture; `affine` (2, 3) leads
        from its pixels to units."""
        to_window = affine.copy()
        to_window[:, 2] -= (self.left, self.top)
        return warp_smooth(image, to_window * self.scale, (self.width, self.height))

    def extract(self, image: U8, affine: F64) -> F32:
        """Return the histograms of gradients in the window."""
        grey = cv2.cvtColor(self.cut(image, affine), cv2.COLOR_BGR2GRAY)
        return np.asarray(_make_descriptor(self.width, self.height).compute(grey), np.float32).ravel()

    def extract_colours(self, image: U8, affine: F64) -> F32:
        """Return the histograms of gradients, and light and colour of small cells against their
        median."""
        patch = self.cut(image, affine)
        edges = _make_descriptor(self.width, self.height).compute(cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY))
        lab = cv2.cvtColor(patch, cv2.COLOR_BGR2LAB).astype(np.float32)
        cells = cv2.resize(lab, (self.width // 4, self.height // 4), interpolation=cv2.INTER_AREA)[1:, 2:-2]
        cells = (cells - np.median(cells, (0, 1))) * np.array(_COLOUR_SCALES, np.float32)
        return np.concatenate([np.ravel(edges), cells.ravel()]).astype(np.float32)


FACE_WINDOW = Window(-80, -60, 0.4, 64, 96)
LIPS_WINDOW = Window(-1.6, -1.4, 20.0, 64, 56)
EYE_WINDOW = Window(-1.7, -1.45, 16.0, 56, 48)


@cache
def _make_descriptor(width: int, height: int) -> cv2.HOGDescriptor:
    block = (2 * _CELL, 2 * _CELL)
    return cv2.HOGDescriptor((width, height), block, (_CELL, _CELL), (_CELL, _CELL), 9)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """points (23, 2): x and y in pixels, in the order of POINTS.

    likeness   positive for faces, GUESSED where no face is seen
    opening    0 where the lips touch .. 1 where they are clearly apart
    """

    points: F64
    likeness: float
    opening: float

    @property
    def is_guess(self) -> bool:
        """Whether the points are where they usually are, and not where they are seen."""
        return self.likeness <= GUESSED

    @property
    def eyes(self) -> F64:
        """(2, 2): the middle between the corners of the left and of the right eye, in pixels."""
        return average_corners(self.points)


def fit_landmarks(image: U8, eyes: F64, *, rough: bool = False) -> Landmarks:
    """Fit the landmarks of the face with `eyes`, (2, 2) x and y, in a (h, w, 3) uint8 BGR picture.

    The eyes may be wrong by a tenth of their distance; with `rough`, by a quarter.
    """
    tables = load_tables()
    for _ in range(2 if rough else 0):
        eyes = tables.predict("eyes", FACE_WINDOW.extract, image, align_eyes(eyes))
    points = tables.predict("face", FACE_WINDOW.extract, image, align_eyes(eyes))
    upright = align_eyes(average_corners(points))
    features = FACE_WINDOW.extract(image, upright)
    points = transform_points(tables.apply("face", features), invert_affine(upright))
    likeness = float(tables.apply("likeness", features)[0, 0])
    points[LIPS] = _fit_lips(image, points[LIPS])
    for _ in range(2):
        points[LEFT_EYE] = tables.predict("eye", EYE_WINDOW.extract, image, align_ends(points[0], points[2]))
        mirrored = compose_affine(align_ends(points[4], points[6]), MIRROR)
        points[[6, 5, 4, 7]] = tables.predict("eye", EYE_WINDOW.extract, image, mirrored)
    return Landmarks(points, likeness, _measure_opening(image, points))


def fit_lips_from(image: U8, landmarks: Landmarks, moved: F64) -> Landmarks:
    """Return the landmarks with lips that are fitted anew, from where they were plus `moved`, x and y in pixels."""
    points = landmarks.points.copy()
    points[LIPS] = _fit_lips(image, points[LIPS] + moved)
    return Landmarks(points, landmarks.likeness, _measure_opening(image, points))


def _fit_lips(image: U8, lips: F64) -> F64:
    for _ in range(2):
        affine = align_ends(lips[0], lips[1])
        lips = load_tables().predict("lips", LIPS_WINDOW.extract_colours, image, affine)
    return lips


def _measure_opening(image: U8, points: F64) -> float:
    features = LIPS_WINDOW.extract_colours(image, align_ends(points[8], points[9]))
    return float(np.clip(load_tables().apply("opening", features)[0, 0], 0, 1))


def find_tall_lips(image: U8, points: F64) -> F64:
    """Return the lips (6, 2) x and y in pixels of a mouth that stands open wider than `points` (23, 2) tell.

    A mouth as tall as this is wide is rare, and mostly beyond the window; in a picture that is lower it looks like
    a mouth that is a little open. What is most sure is the lower edge of the lower lip.
    """
    tables, lips = load_tables(), points[LIPS]
    for _ in range(_TALL_STEPS):
        to_units = align_ends(lips[0], lips[1])
        top, bottom = transform_points(lips[3:5], to_units)[:, 1]
        squeeze = min(1.0, _TALL_GAP / max(1e-3, bottom - top))
        lower = np.array([[1, 0, 0], [0, squeeze, -squeeze * (top + bottom) / 4]])
        lips = tables.predict("lips", LIPS_WINDOW.extract_colours, image, compose_affine(to_units, lower))
    return lips


def average_corners(points: F64) -> F64:
    """Return (2, 2): the middle between the corners of the left and of the right eye, of (23, 2) points."""
    return np.array([points[[0, 2]].mean(0), points[[4, 6]].mean(0)])


def make_usual_landmarks(eyes: F64) -> Landmarks:
    """Return the landmarks of a usual face with `eyes`, (2, 2) x and y, its lips closed."""
    points = transform_points(np.array(_USUAL, np.float64), invert_affine(align_eyes(eyes)))
    return Landmarks(points, GUESSED, 0.0)


MIRROR = np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


class Tables:
    """Linear regressions: (features + 1, 2 n) each, the constant in the last row."""

    def __init__(self, tables: dict[str, F32]) -> None:
        self._tables = tables

    def apply(self, name: str, features: F32) -> F64:
        """Return (n, 2) points."""
        table = self._tables[name]
        return np.asarray(features @ table[:-1] + table[-1], np.float64).reshape(-1, 2)

    def predict(self, name: str, extract: Callable[[U8, F64], F32], image: U8, affine: F64) -> F64:
        """Return (n, 2) points in pixels, from features taken through `affine`."""
        return transform_points(self.apply(name, extract(image, affine)), invert_affine(affine))


@cache
def load_tables() -> Tables:
    with np.load(TABLES_FILE, allow_pickle=False) as stored:
        return Tables({name: dequantize(stored[name], stored[f"{name}_scale"]) for name in TABLES})


TABLES = ("eyes", "face", "likeness", "lips", "opening", "eye")


def quantize(table: F64) -> tuple[I8, F32]:
    """Return int8 values and the scale of each column."""
    scale = np.abs(table[:-1]).max(0) / 127
    whole = np.rint(table[:-1] / scale).astype(np.int8)
    return whole, np.vstack([scale, table[-1]]).astype(np.float32)


def dequantize(whole: I8, scale: F32) -> F32:
    return np.vstack([whole * scale[0], scale[1]]).astype(np.float32)
