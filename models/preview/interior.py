"""Paint the inside of a mouth: a cavity, a tongue, and teeth if the photo shows none."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.arrays import U8, Floats
from models.preview.face import Face, crop_upright
from models.preview.geometry import Crop, ramp
from models.preview.mouth import Mouth

PIXELS_PER_UNIT = 3.0

_CAVITY = (36, 27, 62)
_TONGUE = (84, 78, 150)
_TEETH = (196, 212, 220)
_SKIN_CHROMA = 18.0


@dataclass(frozen=True, slots=True)
class Tone:
    """`exposure` 0.35 (dark) .. 1.05, `saturation` of the skin 0 (a grey picture) .. 1."""

    exposure: float
    saturation: float


@dataclass(frozen=True, slots=True)
class Interior:
    """Pictures of `crop` with PIXELS_PER_UNIT pixels for each face unit; they move with the layers
    of LipField.

    upper   (h, w, 4) uint8: cavity and upper teeth as BGR, and the opacity of the upper layer
    lower   (h, w, 4) uint8: tongue as BGR, and its opacity
    matte   (h, w) uint8: opacity of the lower layer
    """

    crop: Crop
    upper: U8
    lower: U8
    matte: U8


def paint_interior(mouth: Mouth, tone: Tone, softness: float) -> Interior:
    """Paint the inside of a mouth. `softness` of its edges is in face units."""
    crop = Crop(mouth.x - mouth.half_width - 10, mouth.y - 34, 2 * mouth.half_width + 20, 84)
    rows, columns = np.mgrid[0 : crop.height * PIXELS_PER_UNIT, 0 : crop.width * PIXELS_PER_UNIT].astype(np.float32)
    across = (columns / PIXELS_PER_UNIT + np.float32(crop.left) - mouth.x) / mouth.half_width
    y = rows / PIXELS_PER_UNIT + np.float32(crop.top)
    edge = mouth.y + mouth.tilt * across + mouth.bottom * np.clip(1 - across**2, 0, 1)
    below = y - edge
    cavity = _paint_cavity(below, across)
    if not mouth.teeth and mouth.gap == 0:
        cavity = _add_teeth(cavity, below, across)
    upper = _apply_tone(cavity, tone)
    tongue = _apply_tone(np.full((*y.shape, 3), _TONGUE, np.float32), tone)
    shown = ramp(-below, 0.6, 5.0) * np.clip(1.25 - np.abs(across) / 0.62, 0, 1) * ramp(13 + below, 0, 8)
    kept = ramp(0.8 - below, -softness, softness)
    matte = ramp(below, -softness, softness)
    return Interior(crop, _pack_bgra(upper, kept), _pack_bgra(tongue, 0.85 * shown), _to_bytes(255 * matte))


def measure_tone(image: U8, face: Face) -> Tone:
    """Measure the exposure and the saturation of a face in a (h, w, 3) uint8 BGR picture."""
    skin = crop_upright(image, face, Crop(-55, 10, 110, 75), 0.5)
    lab = cv2.cvtColor(skin, cv2.COLOR_BGR2LAB).reshape(-1, 3).astype(np.float32)
    light = float(np.percentile(lab[:, 0], 90)) / 215
    chroma = float(np.median(np.hypot(lab[:, 1] - 128, lab[:, 2] - 128)))
    return Tone(float(np.clip(light, 0.35, 1.05)), float(np.clip(chroma / _SKIN_CHROMA, 0, 1)))


def _paint_cavity(below: Floats, across: Floats) -> Floats:
    """Return (h, w, 3) BGR, darkest under the upper lip and in the corners."""
    light = (0.45 + 0.55 * ramp(below, 0, 22)) * (1 - 0.55 * np.clip(np.abs(across), 0, 1) ** 2)
    return light[..., None] * np.array(_CAVITY, np.float32)


def _add_teeth(cavity: Floats, below: Floats, across: Floats) -> Floats:
    tooth = across / 0.155
    between = np.exp(-(((tooth - np.round(tooth - 0.5) - 0.5) / 0.07) ** 2))
    length = 7.6 - 2.6 * np.abs(across) ** 1.5 - 0.8 * between
    seen = ramp(length - below, -0.7, 0.7) * ramp(0.74 - np.abs(across), 0, 0.16)
    light = (0.64 + 0.36 * ramp(below, -0.5, 5)) * (1 - 0.5 * np.abs(across) ** 2) * (1 - 0.13 * between)
    return cavity + seen[..., None] * (light[..., None] * np.array(_TEETH, np.float32) - cavity)


def _apply_tone(bgr: Floats, tone: Tone) -> Floats:
    grey = bgr @ np.array([0.114, 0.587, 0.299], np.float32)
    return np.asarray(tone.exposure * (grey[..., None] + tone.saturation * (bgr - grey[..., None])), np.float32)


def _pack_bgra(bgr: Floats, alpha: Floats) -> U8:
    return np.dstack([_to_bytes(bgr), _to_bytes(255 * alpha)])


def _to_bytes(values: Floats) -> U8:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
