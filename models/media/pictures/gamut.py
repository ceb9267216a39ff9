"""Convert pictures of other colour spaces to BT.709: ICC profiles, gamma of a PNG, wide gamut, HDR.

HLG and PQ are scaled so that reference white (75 % of HLG, 203 cd/m2) is white; what is brighter
is compressed. The curve of a result is that of sRGB, as it is for stills.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from models.arrays import F32, F64, U8, U16

Xy = tuple[float, float]
BT709_PRIMARIES: tuple[Xy, Xy, Xy, Xy] = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), (0.3127, 0.329))
"""Red, green, blue and white."""
_BT2020 = ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), (0.3127, 0.329))
_PRIMARIES = {
    9: ("BT.2020", _BT2020),
    11: ("DCI-P3", ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.314, 0.351))),
    12: ("Display P3", ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.3127, 0.329))),
}
_HDR = {16: "PQ", 18: "HLG"}
_LEVELS = 4096
_BRIGHTEST, _KNEE = 16.0, 0.7
_MANAGED = ("JPEG", "PNG", "WEBP", "TIFF")
_GREY_OR_RGB = {"GRAY": "L", "RGB ": "RGB"}
_PROBE: U8 = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), axis=-1).reshape(-1, 1, 3)

Curve = Callable[[F64], F64]


@dataclass(frozen=True, slots=True)
class IccConversion:
    """Converts 8-bit BGR by an ICC profile. `name` is the profile's own."""

    name: str
    transform: ImageCms.ImageCmsTransform
    mode: str

    def convert(self, bgr: U8) -> U8:
        """Return (h, w, 3) uint8 BGR in sRGB."""
        stored = bgr[..., 1] if self.mode == "L" else bgr[..., ::-1]
        picture = Image.fromarray(np.ascontiguousarray(stored))
        converted = ImageCms.applyTransform(picture, self.transform)
        return np.ascontiguousarray(np.asarray(converted, np.uint8)[..., ::-1])


class CurveConversion:
    """Converts 12-bit BGR of other primaries or with another curve. `name` is for notes."""

    def __init__(self, name: str, to_linear: Curve, primaries: tuple[Xy, Xy, Xy, Xy] = BT709_PRIMARIES) -> None:
        self.name = name
        self._linear = to_linear(np.arange(_LEVELS) / (_LEVELS - 1)).clip(0, _BRIGHTEST).astype(np.float32)
        rgb = np.linalg.inv(rgb_to_xyz_matrix(BT709_PRIMARIES)) @ rgb_to_xyz_matrix(primaries)
        rgb /= rgb.sum(axis=1, keepdims=True)  # white stays white
        self._matrix: F32 = rgb[::-1, ::-1].astype(np.float32)
        roots = np.arange(_LEVELS) / (_LEVELS - 1)
        self._encoded = encode_srgb(compress_highlights(roots**2 * _BRIGHTEST, float(self._linear[-1])))

    def convert(self, bgr: U16) -> U8:
        """Return (h, w, 3) uint8 BGR in sRGB of (h, w, 3) uint16 of 12 bits."""
        linear = cv2.transform(self._linear[bgr], self._matrix).clip(0, _BRIGHTEST)
        return self._encoded[(np.sqrt(linear / _BRIGHTEST) * (_LEVELS - 1) + 0.5).astype(np.uint16)]


Conversion = IccConversion | CurveConversion


def read_conversion(path: Path, frame: av.VideoFrame, *, still: bool) -> Conversion | None:
    """Return what converts pictures of a file to BT.709, or None where they are that already."""
    named = find_tagged_conversion(frame.color_primaries, frame.color_trc)
    return named or (read_still_conversion(path) if still else None)


def find_tagged_conversion(primaries: int, transfer: int) -> CurveConversion | None:
    """Return the conversion for H.273 tags of wide gamut or HDR, or None."""
    if transfer in _HDR:
        known = _PRIMARIES.get(primaries, ("BT.2020", _BT2020))
        return CurveConversion(f"{known[0]} {_HDR[transfer]}", decode_pq if transfer == 16 else decode_hlg, known[1])
    if primaries not in _PRIMARIES:
        return None
    name, xy = _PRIMARIES[primaries]
    return CurveConversion(name, decode_srgb, xy)


def read_still_conversion(path: Path) -> Conversion | None:
    """Return the conversion for the profile or the gamma of a still, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size has been checked already
            picture = Image.open(path, formats=_MANAGED)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    with picture:
        info, colours = picture.info, picture.mode
    if profile := info.get("icc_profile"):
        return None if colours == "CMYK" else make_icc_conversion(profile)
    return None if "srgb" in info or "gamma" not in info else _make_gamma_conversion(info["gamma"], info)


def make_icc_conversion(profile: bytes) -> IccConversion | None:
    """Return the conversion for an ICC profile; None for one of sRGB, or that cannot be used."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _GREY_OR_RGB[opened.profile.xcolor_space]
        made = ImageCms.buildTransform(
            opened, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
        told = ImageCms.getProfileDescription(opened)
    except (ImageCms.PyCMSError, KeyError, OSError, ValueError):
        return None
    name = "".join(letter for letter in told if letter.isprintable())[:60]
    conversion = IccConversion(name or "its ICC profile", made, mode)
    probe = np.repeat(_PROBE[..., :1], 3, axis=-1) if mode == "L" else _PROBE
    same = np.abs(conversion.convert(probe).astype(int) - probe).max() <= 2
    return None if same else conversion


def _make_gamma_conversion(gamma: float, info: dict[Any, Any]) -> CurveConversion | None:
    chromaticity = info.get("chromaticity")
    xy = BT709_PRIMARIES
    if isinstance(chromaticity, tuple) and len(chromaticity) == 8 and all(chromaticity[1::2]):
        white, red, green, blue = (chromaticity[at : at + 2] for at in (0, 2, 4, 6))
        xy = (red, green, blue, white)
    usual = abs(gamma - 0.45455) < 0.01  # written beside sRGB by most programs
    if not 0.1 < gamma < 5 or (usual and np.abs(np.subtract(xy, BT709_PRIMARIES)).max() < 0.005):
        return None
    return CurveConversion(f"gamma {gamma:.4g}", decode_srgb if usual else lambda signal: signal ** (1 / gamma), xy)


def rgb_to_xyz_matrix(primaries: tuple[Xy, Xy, Xy, Xy]) -> F64:
    """Return (3, 3): from linear R, G, B of these primaries and white to X, Y, Z, white not adapted."""
    *columns, white = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in primaries)
    matrix = np.column_stack(columns)
    return matrix * np.linalg.solve(matrix, white)


def decode_srgb(signal: F64) -> F64:
    linear: F64 = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return linear


def encode_srgb(linear: F64) -> U8:
    signal = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (signal.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def decode_hlg(signal: F64) -> F64:
    """Return the light of the scene by ITU-R BT.2100, 1 at reference white."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    white: F64 = (np.exp((0.75 - c) / a) + b) / 12
    return scene / white


def decode_pq(signal: F64) -> F64:
    """Return the light of the display by SMPTE ST 2084, 1 at 203 cd/m2."""
    m1, m2, c1, c2, c3 = 1305 / 8192, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    light: F64 = (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    return light * 10_000 / 203


def compress_highlights(linear: F64, brightest: float) -> F64:
    """Return light in which what is above the knee ends at 1, where a source has more than 1."""
    if brightest <= 1.001:
        return linear
    room = 1 - _KNEE
    compressed: F64 = np.where(linear < _KNEE, linear, 1 - room * np.exp(-(linear - _KNEE) / room))
    return compressed
