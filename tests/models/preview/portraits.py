"""One real portrait under many conditions, and frames drawn from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from models.arrays import U8
from models.preview.face import Face, choose_largest, find_faces
from models.preview.interior import measure_tone
from models.preview.mouth import Mouth, find_mouth
from models.preview.renderer import Portrait
from tests.share import EXAMPLES


@cache
def portrait() -> U8:
    return np.asarray(cv2.imread(str(EXAMPLES / "collins.jpg")), np.uint8)


def tilt(image: U8, degrees: float) -> U8:
    h, w = image.shape[:2]
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 0.8)
    return np.asarray(cv2.warpAffine(image, turn, (w, h), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def make_grey(image: U8) -> U8:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


def make_pale(image: U8) -> U8:
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), np.uint8)
    hsv[..., 1] //= 3
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)


def make_smaller(image: U8) -> U8:
    return np.asarray(cv2.resize(image, (320, 320), interpolation=cv2.INTER_AREA), np.uint8)


def make_taller(image: U8, top: float, factor: float) -> U8:
    """Return a picture that is stretched downward from row `top` on, and cut."""
    h, w = image.shape[:2]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    source = np.where(y < top, y, top + (y - top) / factor).astype(np.float32)
    return np.asarray(cv2.remap(image, x, source, cv2.INTER_LINEAR), np.uint8)


def make_darker(image: U8) -> U8:
    return (image * 0.45).astype(np.uint8)


CONDITIONS: dict[str, Callable[[U8], U8]] = {
    "as it is": lambda image: image,
    "grey": make_grey,
    "pale": make_pale,
    "small": make_smaller,
    "dark": make_darker,
    "tilted left": lambda image: tilt(image, 20),
    "tilted right": lambda image: tilt(image, -20),
}
FOUND: dict[bytes, Face] = {}


def find_face(image: U8) -> Face:
    """Return the largest face; each picture is searched once, because that takes half a second."""
    key = hashlib.sha256(image.tobytes()).digest()
    if key not in FOUND:
        faces = find_faces(image)
        assert faces
        FOUND[key] = choose_largest(faces)
    return FOUND[key]


def open_scene(image: U8) -> tuple[Face, Mouth, Portrait]:
    face = find_face(image)
    mouth = find_mouth(image, face)
    return face, mouth, Portrait(image, face, mouth, measure_tone(image, face))


def draw(image: U8, opening: float, spread: float = 0.0, shut: float = 0.0) -> U8:
    return np.asarray(open_scene(image)[2].render((opening, spread), shut, None), np.uint8)


def find_largest(frame: U8) -> Face | None:
    return choose_largest(faces) if (faces := find_faces(frame)) else None
