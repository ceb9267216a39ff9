"""Render one frame: the photo, or a frame of a video, with mouth, lids and head moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.arrays import F64, U8, Bool, Floats
from models.preview.face import Face
from models.preview.geometry import (
    Crop,
    Maps,
    Rect,
    compose_affine,
    compute_rect,
    invert_affine,
    join_rects,
    make_grid,
    to_slices,
    transform_grid,
)
from models.preview.head import HeadField, make_lids
from models.preview.interior import Tone, paint_interior
from models.preview.lips import STEP, LipField
from models.preview.mouth import Mouth

_MARGIN = 8
_BAND = 128
"""Rows of a head that are drawn at once: where each comes from then stays in the cache of the processor."""
_NO_MAP = np.empty(0, np.float32)
"""The second map of cv2.remap where the first has x and y."""
_TEXTURE_SIDE = 4096
_EYES = Crop(-115, -60, 230, 145)
"""Both eyes with the skin of which their lids are made, in face units."""
_LABEL, _FONT = "PREVIEW - no model weights", cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, slots=True)
class Texture:
    """A picture to take pixels from, and the (2, 3) map from face units to its pixels."""

    pixels: U8
    from_units: F64

    def sample(self, x: Floats, y: Floats) -> U8:
        """Return (h, w, 3) uint8, the pixels at (h, w) face units."""
        maps = transform_grid(self.from_units, x, y)
        return np.asarray(cv2.remap(self.pixels, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


class MouthPainter:
    """Draws the mouth of one face at any place of a picture."""

    def __init__(self, face: Face, mouth: Mouth, tone: Tone) -> None:
        self._mouth, self._lips = mouth, LipField(mouth, face.outline)
        self._interior, self._black = paint_interior(mouth, tone, face.eye_distance), tone.black

    def find_rect(self, face: Face, size: tuple[int, int]) -> Rect:
        """Return the pixels that this mouth may change, in a picture of (width, height)."""
        return compute_rect(face.to_upright, self._lips.crop, size)

    def draw(self, target: U8, units: Maps, source: Texture, shape: tuple[float, float], weight: float = 1) -> None:
        """Draw into `target`, (h, w, 3) uint8, whose pixels have the positions `units` in face
        units.

        `shape` is opening and spread; `weight` 0 keeps the mouth of the source.
        """
        if not target.size:
            return
        x, y = units
        moved = self._lips.compute_displacements(*shape) * np.float32(weight)
        columns, rows = (x - np.float32(self._lips.crop.left)) / STEP, (y - np.float32(self._lips.crop.top)) / STEP
        shift = cv2.remap(moved, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        x = x - shift[..., 0]
        upper, lower = y - shift[..., 1], y - shift[..., 2]
        highest, lowest = self._interior.edge
        seam = find_stretch(lower.max(1) > highest, lower.min(1) < lowest)
        target[: seam.start] = source.sample(x[: seam.start], upper[: seam.start])
        target[seam.stop :] = source.sample(x[seam.stop :], lower[seam.stop :])
        at = x[seam], upper[seam], lower[seam]
        target[seam] = self._draw_lips(source, (units[0][seam], units[1][seam]), *at, shape[0])

    def _draw_lips(self, source: Texture, units: Maps, x: Floats, upper: Floats, lower: Floats, opening: float) -> U8:
        """Return the rows in which both layers are seen, and what is between them."""
        if not x.size:
            return np.empty((*x.shape, 3), np.uint8)
        above = source.sample(x, upper)
        hole = self._find_hole(units, opening)
        if hole:
            above[hole] = self._paint_opening(above[hole], x[hole], upper[hole], lower[hole], opening)
        return _blend(above, source.sample(x, lower), self._interior.sample(self._interior.matte, x, lower))

    def _find_hole(self, units: Maps, opening: float) -> tuple[slice, slice] | None:
        """Return the part of the target where the inside of the mouth may show, or None."""
        mouth = self._mouth
        top, bottom = mouth.y - 18, mouth.y + max(0.0, mouth.bottom) + self._lips.compute_aperture(opening) + 12
        inside = (np.abs(units[0] - mouth.x) < mouth.half_width) & (units[1] > top) & (units[1] < bottom)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not len(rows):
            return None
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def _paint_opening(self, above: U8, x: Floats, upper: Floats, lower: Floats, opening: float) -> U8:
        """Blend the upper layer over the inside of the mouth."""
        behind = self._interior.sample(self._interior.upper, x, upper)
        tongue = self._interior.sample(self._interior.lower, x, lower)
        inner = _blend(behind[..., :3], tongue[..., :3], tongue[..., 3])
        lit = min(1.0, 0.30 + self._lips.compute_aperture(opening) / 14)
        return _blend(
            np.asarray(cv2.convertScaleAbs(inner, alpha=lit, beta=self._black * (1 - lit)), np.uint8),
            above,
            behind[..., 3],
        )


class Portrait:
    """Renders frames of one photo, (h, w, 3) uint8 BGR. A mouth that isn't seen doesn't move."""

    def __init__(self, image: U8, face: Face, mouth: Mouth, tone: Tone) -> None:
        size = (image.shape[1], image.shape[0])
        self._image, self._to_upright = image, face.to_upright
        self._mouth, self._painter = mouth, MouthPainter(face, mouth, tone)
        self._head, self._lids = HeadField(face, size), make_lids(image, face)
        self._mouth_rect = self._painter.find_rect(face, size)
        self._enlarged, self._to_enlarged = enlarge_part(image, self._head.rect)
        from_upright = invert_affine(face.to_upright)
        self._texture = Texture(self._enlarged, compose_affine(from_upright, self._to_enlarged))

    @property
    def rect(self) -> Rect:
        """The pixels that a frame may change."""
        return join_rects([self._head.rect, self._mouth_rect, *(lid.rect for lid in self._lids)])

    def render(self, shape: tuple[float, float], shut: float, pose: Floats | None, out: U8 | None = None) -> U8:
        """Return a frame of opening and spread, lids `shut` 0..1, `pose` of `make_sway` or None.

        It is drawn into `out`, an array of the photo's shape, where that is given: a new one costs more than a head.
        """
        frame = np.empty_like(self._image) if out is None else out
        np.copyto(frame, self._image)
        find_sources: Callable[[Rect], Maps] = make_grid if pose is None else self._move_head(frame, pose)
        for lid in self._lids if shut > 0 else ():
            lid.cover(frame[to_slices(lid.rect)], find_sources(lid.rect), shut)
        if self._mouth.is_visible:
            units = transform_grid(self._to_upright, *find_sources(self._mouth_rect))
            self._painter.draw(frame[to_slices(self._mouth_rect)], units, self._texture, shape)
        return frame

    def _move_head(self, frame: U8, pose: Floats) -> Callable[[Rect], Maps]:
        """Draw the head into `frame`; return what tells from where in the photo the pixels of a rectangle come."""
        nodes = self._head.compute_nodes(pose, self._to_enlarged)
        x0, y0, x1, y1 = self._head.rect
        for top in range(y0, y1, _BAND):
            band = (x0, top, x1, min(y1, top + _BAND))
            sources = self._head.find_sources(nodes, band)
            cv2.remap(self._enlarged, sources, _NO_MAP, cv2.INTER_LINEAR, dst=frame[to_slices(band)])
        to_photo = invert_affine(self._to_enlarged)

        def find_sources(rect: Rect) -> Maps:
            part = self._head.find_sources(nodes, rect)
            return transform_grid(to_photo, part[..., 0], part[..., 1])

        return find_sources

    def draw_on(self, frame: U8, shape: tuple[float, float], shut: float) -> None:
        """Copy mouth and lids of `render` without a pose into a frame in which other faces have moved."""
        own = self.render(shape, shut, None)
        for rect in (self._mouth_rect, *(lid.rect for lid in self._lids)):
            frame[to_slices(rect)] = own[to_slices(rect)]


def find_eyes(face: Face, size: tuple[int, int]) -> Rect:
    """Return the pixels that `draw_lids` looks at, in a picture of (width, height)."""
    return compute_rect(face.to_upright, _EYES, size)


def draw_mouth(frame: U8, face: Face, painter: MouthPainter, shape: tuple[float, float], weight: float) -> None:
    """Move the mouth in a frame of a video, (h, w, 3) uint8, in place, at `face`."""
    rect = painter.find_rect(face, (frame.shape[1], frame.shape[0]))
    units = transform_grid(face.to_upright, *make_grid(rect))
    source = Texture(frame.copy(), invert_affine(face.to_upright))
    painter.draw(frame[to_slices(rect)], units, source, shape, weight)


def draw_lids(frame: U8, face: Face, shut: float) -> None:
    """Shut the eyes in a frame of a video, in place."""
    for lid in make_lids(frame, face):
        lid.cover(frame[to_slices(lid.rect)], make_grid(lid.rect), shut)


def outline_boxes(frame: U8, boxes: Sequence[Sequence[float]]) -> None:
    """Draw the outlines of boxes x, y, w, h into a (h, w, 3) uint8 frame, in place: blue with a white edge."""
    stroke = max(2, round(min(frame.shape[:2]) / 160))
    for x, y, w, h in boxes:
        corners = (round(x), round(y)), (round(x + w), round(y + h))
        for colour, thickness in (((255, 255, 255), 2 * stroke), ((200, 75, 75), stroke)):
            cv2.rectangle(frame, *corners, colour, thickness, cv2.LINE_AA)


class Label:
    """The label that tells a preview from a final video, for frames of (width, height) pixels.

    It is top left, or bottom left where it would cover a face.

    `faces` is (n, 4): x, y, w, h in pixels of the face in every frame that shows it.
    """

    def __init__(self, width: int, height: int, faces: Floats) -> None:
        self._size = max(0.3, min(height / 1000, width / 700))
        self._stroke = max(1, round(self._size * 1.4))
        (wide, self._high), below = cv2.getTextSize(_LABEL, _FONT, self._size, self._stroke)
        self._margin = round(9 * self._size) + 2
        self._wide, self._tall = wide + 2 * self._margin, self._high + below + 2 * self._margin
        covers = (faces[:, 0] < self._wide) & (faces[:, 1] < self._tall)
        self._top = height - self._tall if covers.any() else 0
        self.rect: Rect = (0, self._top, min(width, self._wide), min(height, self._top + self._tall))

    def stamp(self, frame: U8, top: int = 0) -> None:
        """Write the label into a (h, w, 3) uint8 frame, or into the rows of it from `top` on, in place."""
        first = self._top - top
        corner = frame[first : first + self._tall, : self._wide]
        np.floor_divide(corner, 3, out=corner)
        where = (self._margin, first + self._high + self._margin)
        cv2.putText(frame, _LABEL, where, _FONT, self._size, (255, 255, 255), self._stroke, cv2.LINE_AA)


def find_stretch(begun: Bool, unfinished: Bool) -> slice:
    """Return the indices from the first that has begun to the last that is unfinished.

    >>> find_stretch(np.array([False, True, True, True]), np.array([True, True, False, False]))
    slice(1, 2, None)
    """
    start = int(begun.argmax()) if begun.any() else len(begun)
    stop = len(begun) - int(unfinished[::-1].argmax()) if unfinished.any() else 0
    return slice(start, max(start, stop))


def enlarge_part(image: U8, rect: Rect) -> tuple[U8, F64]:
    """Return the moving part of a photo, at twice its size if it isn't huge, and the map from the
    photo's pixels to it.

    Moving by parts of a pixel softens a picture, but hardly one of twice the pixels. Parts without
    movement stay exact.
    """
    x0, y0 = max(0, rect[0] - _MARGIN), max(0, rect[1] - _MARGIN)
    part = image[y0 : rect[3] + _MARGIN, x0 : rect[2] + _MARGIN]
    height, width = part.shape[:2]
    scale = 2 if max(height, width) * 2 <= _TEXTURE_SIDE else 1
    grow, size = np.array([[scale, 0, 0], [0, scale, 0]], np.float64), (scale * width, scale * height)
    larger = cv2.warpAffine(part, grow, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(larger, np.uint8), grow + scale * np.array([[0, 0, -x0], [0, 0, -y0]])


def _blend(under: U8, over: U8, opacity: U8) -> U8:
    weight = opacity.astype(np.float32) * np.float32(1 / 255)
    return np.asarray(cv2.blendLinear(over, under, weight, 1 - weight))
