"""One frame of the result: the photo (or a frame of a video) with its mouth, lids and head moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.preview.face import UNIT, Affine, Crop, Face, Image
from models.preview.head import HeadField, Maps, Rect, lids_of, mapped, rect_of, shade, slices, standing
from models.preview.interior import PIXELS_PER_UNIT, Tone, paint
from models.preview.lips import STEP, LipField
from models.preview.mouth import Mouth

Floats = npt.NDArray[Any]

_MARGIN = 8
_TEXTURE_SIDE = 4096


@dataclass(frozen=True, slots=True)
class Texture:
    """A picture to take pixels from, and the (2, 3) map from face units to its pixels."""

    pixels: Image
    from_units: Affine

    def at(self, x: Floats, y: Floats) -> Image:
        """The pixels at (h, w) face units."""
        maps = mapped(self.from_units, x, y)
        return np.asarray(cv2.remap(self.pixels, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


class MouthPainter:
    """Draws the mouth of one face, wherever in a picture the face is."""

    def __init__(self, mouth: Mouth, tone: Tone, eye_distance: float) -> None:
        self._mouth, self._lips = mouth, LipField(mouth)
        self._interior = paint(mouth, tone, softness=1.1 * UNIT / eye_distance)

    def rect(self, face: Face, size: tuple[int, int]) -> Rect:
        """The pixels that drawing this mouth may change."""
        crop = self._lips.crop
        return rect_of(face, crop.left, crop.top, crop.left + crop.width, crop.top + crop.height, size)

    def draw(self, target: Image, units: Maps, source: Texture, shape: tuple[float, float], weight: float = 1) -> None:
        """Draw into `target`, (h, w, 3) uint8, whose pixels lie at these face units.

        `shape` is opening and spread; `weight` 0 leaves the mouth of the source as it is.
        """
        if not target.size:
            return
        x, y = units
        moved = self._lips.displacements(*shape) * np.float32(weight)
        columns, rows = (x - np.float32(self._lips.crop.left)) / STEP, (y - np.float32(self._lips.crop.top)) / STEP
        shift = cv2.remap(moved, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        x = x - shift[..., 0]
        upper, lower = y - shift[..., 1], y - shift[..., 2]
        above = source.at(x, upper)
        hole = self._hole(units, shape[0])
        if hole:
            above[hole] = self._opened(above[hole], x[hole], upper[hole], lower[hole], shape[0])
        target[:] = _mixed(above, source.at(x, lower), self._inside(self._interior.matte, x, lower))

    def _hole(self, units: Maps, opening: float) -> tuple[slice, slice] | None:
        """The part of the target where the inside of the mouth may be seen."""
        mouth = self._mouth
        top, bottom = mouth.y - 18, mouth.y + max(0.0, mouth.bottom) + self._lips.aperture(opening) + 12
        inside = (np.abs(units[0] - mouth.x) < mouth.half_width) & (units[1] > top) & (units[1] < bottom)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not len(rows):
            return None
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def _opened(self, above: Image, x: Floats, upper: Floats, lower: Floats, opening: float) -> Image:
        """The upper layer with what is behind it."""
        behind = self._inside(self._interior.upper, x, upper)
        tongue = self._inside(self._interior.lower, x, lower)
        inner = _mixed(behind[..., :3], tongue[..., :3], tongue[..., 3])
        lit = min(1.0, 0.30 + self._lips.aperture(opening) / 14)
        return _mixed(cv2.convertScaleAbs(inner, alpha=lit), above, behind[..., 3])

    def _inside(self, picture: Image, x: Floats, y: Floats) -> Image:
        crop: Crop = self._interior.crop
        columns, rows = (x - np.float32(crop.left)) * PIXELS_PER_UNIT, (y - np.float32(crop.top)) * PIXELS_PER_UNIT
        return np.asarray(cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


class Portrait:
    """Frames made of one photo of (h, w, 3) uint8 BGR."""

    def __init__(self, image: Image, face: Face, mouth: Mouth, tone: Tone) -> None:
        size = (image.shape[1], image.shape[0])
        self._image, self._to_upright = image, face.to_upright
        self._painter = MouthPainter(mouth, tone, face.eye_distance)
        self._head, self._lids = HeadField(face, size), lids_of(face, size)
        self._mouth_rect = self._painter.rect(face, size)
        self._enlarged, self._to_enlarged = enlarged(image, self._head.rect)
        from_upright = cv2.invertAffineTransform(face.to_upright)
        self._texture = Texture(self._enlarged, after(from_upright, self._to_enlarged))

    def frame(self, shape: tuple[float, float], shut: float, pose: Floats | None) -> Image:
        """A new frame: `shape` of the mouth, lids `shut` 0..1, `pose` of the head or None to keep it still."""
        frame = self._image.copy()
        rect = self._head.rect
        maps = self._head.maps(pose)
        lashes = [lid.lower(_part(maps, slices(lid.rect, rect[:2])), shut) for lid in self._lids] if shut > 0 else []
        frame[slices(rect)] = cv2.remap(self._enlarged, *mapped(self._to_enlarged, *maps), cv2.INTER_LINEAR)
        for lid, light in zip(self._lids, lashes, strict=False):
            shade(frame[slices(lid.rect)], light)
        units = mapped(self._to_upright, *_part(maps, slices(self._mouth_rect, rect[:2])))
        self._painter.draw(frame[slices(self._mouth_rect)], units, self._texture, shape)
        return frame


def draw_mouth(frame: Image, face: Face, painter: MouthPainter, shape: tuple[float, float], weight: float) -> None:
    """Move the mouth in a frame of a video, (h, w, 3) uint8, in place, where the face is in this frame."""
    rect = painter.rect(face, (frame.shape[1], frame.shape[0]))
    units = mapped(face.to_upright, *standing(rect))
    source = Texture(frame.copy(), cv2.invertAffineTransform(face.to_upright))
    painter.draw(frame[slices(rect)], units, source, shape, weight)


def draw_lids(frame: Image, face: Face, shut: float) -> None:
    """Shut the eyes in a frame of a video, in place."""
    for lid in lids_of(face, (frame.shape[1], frame.shape[0])):
        maps = standing(lid.rect)
        light = lid.lower(maps, shut)
        if light.size:
            frame[slices(lid.rect)] = cv2.remap(frame, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            shade(frame[slices(lid.rect)], light)


def enlarged(image: Image, rect: Rect) -> tuple[Image, Affine]:
    """The part of a photo that moves, twice as large if it isn't huge, and the map from the photo's pixels to its own.

    Moving by parts of a pixel softens a picture; from twice the pixels hardly. What stands still stays exact.
    """
    x0, y0 = max(0, rect[0] - _MARGIN), max(0, rect[1] - _MARGIN)
    part = image[y0 : rect[3] + _MARGIN, x0 : rect[2] + _MARGIN]
    height, width = part.shape[:2]
    scale = 2 if max(height, width) * 2 <= _TEXTURE_SIDE else 1
    grow, size = np.array([[scale, 0, 0], [0, scale, 0]], np.float64), (scale * width, scale * height)
    larger = cv2.warpAffine(part, grow, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return larger, grow + scale * np.array([[0, 0, -x0], [0, 0, -y0]])


def after(first: Affine, second: Affine) -> Affine:
    """The map that does `first`, then `second`."""
    whole = np.vstack([second, [0, 0, 1]]) @ np.vstack([first, [0, 0, 1]])
    return np.asarray(whole[:2])


def _part(maps: Maps, part: tuple[slice, slice]) -> Maps:
    return maps[0][part], maps[1][part]


def _mixed(under: Image, over: Image, opacity: Image) -> Image:
    weight = opacity.astype(np.float32) * np.float32(1 / 255)
    return np.asarray(cv2.blendLinear(over, under, weight, 1 - weight))
