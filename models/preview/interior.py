"""Paint the inside of a mouth: a cavity, a tongue, and teeth if the photo shows none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from models.arrays import U8, Floats
from models.preview.face import Face, crop_upright
from models.preview.geometry import UNIT, Crop, ramp, warp_smooth
from models.preview.mouth import Mouth

PIXELS_PER_UNIT = 3.0

_CAVITY = (36, 27, 62)
_TONGUE = (84, 78, 150)
_TEETH = (196, 212, 220)
_DARK, _BRIGHT, _IN_SHADE = 14.0, 215.0, 0.92
"""Black and white of the face for which the colours above were chosen, and the shade that lips throw on teeth."""
_SKIN_CHROMA = 18.0
_LUMA = np.array([0.114, 0.587, 0.299])
_USUAL_SKIN, _CAST = np.array([0.82, 0.95, 1.18]), (0.6, 1.25)
"""Skin as BGR against its light, and the farthest that a picture's is taken to be from it."""
_DARKER = 0.4
"""The inside of a mouth against the darkest part of a face: pupils reflect."""
_NARROW = 9.0
"""A gap between the lips, in face units, that is too narrow to show what is in the mouth: it is painted over."""
_FINEST = 1.5
"""Pixels of the interior for each pixel of the photo."""
_MOST_MEASURED = 2.5
"""Pixels per face unit at which sharpness and grain are measured at most."""
_SHARP, _MOST_BLUR, _CLEAN, _MOST_GRAIN = 1.4, 5.0, 1.0, 14.0


@dataclass(frozen=True, slots=True)
class Tone:
    """How a face is seen in its picture, so that what is painted looks the same.

    black, white   light of the inside of a mouth and of the bright skin, 0..255
    saturation     of the skin, 0 (a grey picture) .. 1
    blue, red      what the picture makes of these colours, against that of usual skin; 1 where nothing
    blur           pixels by which edges are wider than sharp ones
    grain          standard deviation of the noise of the skin, in light
    """

    black: float
    white: float
    saturation: float
    blue: float
    red: float
    blur: float
    grain: float


@dataclass(frozen=True, slots=True)
class Interior:
    """Pictures of `crop` with `scale` pixels for each face unit; they move with the layers of LipField.

    upper   (h, w, 4) uint8: cavity and upper teeth as BGR, and the opacity of the upper layer
    lower   (h, w, 4) uint8: tongue as BGR, and its opacity
    matte   (h, w) uint8: opacity of the lower layer
    edge    y in face units above which the matte is 0, and below which it is 255
    """

    crop: Crop
    scale: float
    upper: U8
    lower: U8
    matte: U8
    edge: tuple[float, float]

    def sample(self, picture: U8, x: Floats, y: Floats) -> U8:
        """Return what one of the pictures shows at x and y, (h, w) in face units."""
        half = np.float32(0.5 - 0.5 * self.scale / PIXELS_PER_UNIT)
        columns = (x - np.float32(self.crop.left)) * np.float32(self.scale) - half
        rows = (y - np.float32(self.crop.top)) * np.float32(self.scale) - half
        return np.asarray(cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def paint_interior(mouth: Mouth, tone: Tone, eye_distance: float) -> Interior:
    """Paint the inside of a mouth, as sharp and as large as a face with that distance of the eyes, in pixels, needs.

    It is painted large and averaged, so that the teeth of a small face have no jagged edges.
    """
    pixel = UNIT / eye_distance
    softness = (1.1 + tone.blur) * pixel
    crop = Crop(mouth.x - mouth.half_width - 10, mouth.y - 34, 2 * mouth.half_width + 20, 84)
    rows, columns = np.mgrid[0 : crop.height * PIXELS_PER_UNIT, 0 : crop.width * PIXELS_PER_UNIT].astype(np.float32)
    across = (columns / PIXELS_PER_UNIT + np.float32(crop.left) - mouth.x) / mouth.half_width
    y = rows / PIXELS_PER_UNIT + np.float32(crop.top)
    edge = mouth.y + mouth.tilt * across + mouth.bottom * np.clip(1 - across**2, 0, 1)
    below, under = y - edge, y - edge
    if not mouth.teeth and mouth.gap < _NARROW:
        under = below + mouth.gap * np.clip(1 - across**2, 0, 1)
    cavity = _paint_cavity(under, across)
    if not mouth.teeth and mouth.gap < _NARROW:
        cavity = _add_teeth(cavity, under, across)
    upper = _apply_tone(cavity, tone, pixel)
    tongue = _apply_tone(np.full((*y.shape, 3), _TONGUE, np.float32), tone, pixel)
    shown = ramp(-below, 0.6, 5.0) * np.clip(1.25 - np.abs(across) / 0.62, 0, 1) * ramp(13 + below, 0, 8)
    kept = np.maximum(ramp(0.8 - under, -softness, softness), ramp(np.abs(across), 0.9, 1.0))
    matte = ramp(below, -softness, softness)
    scale = min(PIXELS_PER_UNIT, _FINEST / pixel)
    pictures = (_pack_bgra(upper, kept), _pack_bgra(tongue, 0.85 * shown), _to_bytes(255 * matte))
    above, tongues, opacity = (_shrink(picture, scale / PIXELS_PER_UNIT) for picture in pictures)
    reach = softness + 2 / min(scale, 1.0)
    return Interior(crop, scale, above, tongues, opacity, (float(edge.min()) - reach, float(edge.max()) + reach))


def measure_tone(image: U8, face: Face) -> Tone:
    """Measure light, colour, sharpness and grain of a face in a (h, w, 3) uint8 BGR picture."""
    skin = _crop_lab(image, face, Crop(-55, 10, 110, 75), 0.5).reshape(-1, 3)
    white = float(np.clip(np.percentile(skin[:, 0], 90), 60, 225))
    chroma = float(np.median(np.hypot(skin[:, 1] - 128, skin[:, 2] - 128)))
    colour = np.asarray(np.median(crop_upright(image, face, Crop(-55, 10, 110, 75), 0.5).reshape(-1, 3), 0), np.float64)
    blue, _, red = np.clip(colour / max(1.0, float(colour @ _LUMA)) / _USUAL_SKIN, *_CAST)
    saturation = float(np.clip(chroma / _SKIN_CHROMA, 0, 1))
    fine = min(face.eye_distance / UNIT, _MOST_MEASURED)
    darkest = float(np.percentile(_crop_lab(image, face, Crop(-75, -45, 150, 190), fine)[..., 0], 0.3))
    eyes = _crop_lab(image, face, Crop(-85, -30, 170, 60), fine)[..., 0]
    cheeks = _crop_lab(image, face, Crop(-60, 32, 120, 30), fine)[..., 0]
    return Tone(
        min(_DARKER * darkest, 0.4 * white),
        white,
        saturation,
        float(blue**saturation),
        float(red**saturation),
        _measure_blur(eyes) * face.eye_distance / UNIT / fine,
        float(np.clip(_measure_grain(cheeks) - _CLEAN, 0, _MOST_GRAIN)),
    )


def _crop_lab(image: U8, face: Face, crop: Crop, pixels_per_unit: float) -> Floats:
    cropped = crop_upright(image, face, crop, pixels_per_unit)
    return np.asarray(cv2.cvtColor(cropped, cv2.COLOR_BGR2LAB), np.float32)


def _measure_blur(light: Floats) -> float:
    """Return how much wider the sharpest edges are than those of a sharp picture, in pixels.

    An edge that is blurred by a Gaussian has a slope of its height / (sigma * sqrt(2 pi)).
    """
    across, down = cv2.Sobel(light, -1, 1, 0, scale=1 / 8), cv2.Sobel(light, -1, 0, 1, scale=1 / 8)
    steepest = float(np.percentile(np.hypot(across, down), 99.5))
    height = float(np.ptp(np.percentile(light, [1, 99])))
    return float(np.clip(height / max(steepest, 1.0) / math.sqrt(2 * math.pi) - _SHARP, 0, _MOST_BLUR))


def _measure_grain(light: Floats) -> float:
    """Return the standard deviation of what differs from one pixel to the next."""
    fine = light - cv2.GaussianBlur(light, (0, 0), 1.0)
    return float(1.4826 * np.median(np.abs(fine))) / 0.8


def _shrink(picture: U8, scale: float) -> U8:
    size = (math.ceil(picture.shape[1] * scale), math.ceil(picture.shape[0] * scale))
    if scale == 1:
        return picture
    to_small = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])
    return warp_smooth(picture, to_small, size)


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


def _apply_tone(bgr: Floats, tone: Tone, pixel: float) -> Floats:
    """Return a painted picture in the tone of the photo, whose pixels are `pixel` face units wide."""
    bgr = bgr * np.array([tone.blue, 1, tone.red], np.float32)
    grey = (bgr @ _LUMA.astype(np.float32))[..., None]
    gain = _IN_SHADE * (tone.white - tone.black) / (_BRIGHT - _DARK)
    toned: Floats = tone.black + gain * (grey + tone.saturation * (bgr - grey) - _DARK)
    if tone.blur:
        toned = np.asarray(cv2.GaussianBlur(toned, (0, 0), tone.blur * pixel * PIXELS_PER_UNIT), np.float32)
    h, w = grey.shape[:2]
    size = (max(1, round(w / pixel / PIXELS_PER_UNIT)), max(1, round(h / pixel / PIXELS_PER_UNIT)))
    noise = np.random.default_rng(0).normal(0, tone.grain, size[::-1]).astype(np.float32)
    return np.asarray(toned + cv2.resize(noise, (w, h), interpolation=cv2.INTER_LINEAR)[..., None], np.float32)


def _pack_bgra(bgr: Floats, alpha: Floats) -> U8:
    return np.dstack([_to_bytes(bgr), _to_bytes(255 * alpha)])


def _to_bytes(values: Floats) -> U8:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
