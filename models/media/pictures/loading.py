"""Stills that Pillow loads, because FFmpeg decodes them wrongly or not at all."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from models.arrays import U8
from models.media.budget import charge
from models.media.opening import unreadable_file
from models.media.pictures.gamut import IccConversion, make_icc_conversion

HEIF_PACKAGE = "pillow_heif"
_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_OPAQUE = ("1", "L", "P", "RGB", "YCbCr", "CMYK")


@dataclass(frozen=True, slots=True)
class LoadedStill:
    """(h, w, 3 or 4) uint8 BGR or BGRA, upright, and what converts its colours, if anything has to."""

    picture: U8
    conversion: IccConversion | None = None
    notes: tuple[str, ...] = ()


def has_heif() -> bool:
    """Whether the package that reads HEIC is installed; Pillow knows the format from then on."""
    with suppress(ImportError):
        import_module(HEIF_PACKAGE).register_heif_opener()
        return True
    return False


def read_size(path: Path, formats: list[str] | None) -> tuple[int, int] | None:
    """Return width and height as stored; None where it is of none of these formats of Pillow's."""
    try:
        with _open(path, formats) as picture:
            return picture.size
    except _ERRORS:
        return None


def has_one_value(path: Path) -> bool | None:
    """Return whether all pixels of a still are the same, None where Pillow can't tell."""
    try:
        with _open(path, None) as picture:
            return all(low == high for low, high in picture.convert("RGBA").getextrema())  # type: ignore[misc]
    except _ERRORS:
        return None


def is_transparent(path: Path, formats: list[str]) -> bool:
    """Whether a still of these formats says that it has transparency."""
    try:
        with _open(path, formats) as picture:
            return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    except _ERRORS:
        return False


def load_still(path: Path, name: str, kind: str, formats: list[str] | None = None) -> LoadedStill:
    """Load a picture. `kind` is what people call its format. Raises EngineError avatar_unreadable."""
    try:
        with _open(path, formats) as stored:
            charge(pixels=stored.width * stored.height)
            profile = stored.info.get("icc_profile") or b""
            picture = ImageOps.exif_transpose(stored)
    except _ERRORS as error:
        raise unreadable_file("avatar", f"{name} is a {kind} of a kind that is not read here, or damaged") from error
    if picture.mode == "CMYK" and profile:
        return _convert_cmyk(picture, profile, name)
    try:
        colours = picture.convert("RGB" if picture.mode in _OPAQUE and "transparency" not in picture.info else "RGBA")
    except ValueError as error:
        raise unreadable_file("avatar", f"{name} is a {kind} in {picture.mode}, which is not read here") from error
    return LoadedStill(_to_bgr(colours), make_icc_conversion(profile) if profile else None)


def _convert_cmyk(picture: Image.Image, profile: bytes, name: str) -> LoadedStill:
    """Return the colours that an ICC profile of a print gives; without a usable one those of plain inks."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        shown = ImageCms.profileToProfile(picture, source, target, intent, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        shown = None
    if shown is None:
        return LoadedStill(_to_bgr(picture.convert("RGB")))
    return LoadedStill(_to_bgr(shown), notes=(f"{name} has colours of a print; they are converted to BT.709",))


def _open(path: Path, formats: list[str] | None) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the size is checked by the caller
        return Image.open(path, formats=formats)


def _to_bgr(picture: Image.Image) -> U8:
    rgb = np.asarray(picture, np.uint8)
    return np.ascontiguousarray(rgb[..., [2, 1, 0, 3][: rgb.shape[2]]])
