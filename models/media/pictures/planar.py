"""Frames as H.264 stores them: three planes in one array, not converted where the source has them
already.

A frame is (height * 3 / 2, width) uint8: the luma, then both chroma planes of half the width and
height.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from models.arrays import U8
from models.media.pictures.background import WHITE, Background
from models.media.pictures.colour import (
    BT709,
    MIRRORED_ACROSS,
    MIRRORED_DOWN,
    SIDEWAYS,
    UNSPECIFIED,
    ToBgr,
    ToYuv,
    apply_orientation,
    resolve_matrix,
    view_plane,
)
from models.media.pictures.gamut import Conversion
from models.types import Colour

_APART = 4
"""Pixels around a rectangle that are converted with it: chroma is an average of neighbours."""
_SCALED = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND)


def split_planes(yuv: U8) -> tuple[U8, U8, U8]:
    """Return views of the luma (h, w) and of both chroma planes (h / 2, w / 2)."""
    height, width = yuv.shape[0] * 2 // 3, yuv.shape[1]
    first, second = yuv[height:].reshape(2, height // 2, width // 2)
    return yuv[:height], first, second


def yuv_to_frame(yuv: U8, colour: Colour) -> av.VideoFrame:
    """Copy the planes into a frame for FFmpeg, tagged with `colour`."""
    height, width = yuv.shape[0] * 2 // 3, yuv.shape[1]
    frame = av.VideoFrame(width, height, "yuv420p")
    for number, plane in enumerate(split_planes(yuv)):
        view_plane(frame, number)[:] = plane
    return tag_frame(frame, colour)


def tag_frame(frame: av.VideoFrame, colour: Colour) -> av.VideoFrame:
    """Set the colour tags of a frame in place and return it."""
    frame.colorspace, frame.color_range = colour.matrix, colour.range
    frame.color_primaries, frame.color_trc = colour.primaries, colour.transfer
    return frame


def yuv_to_bgr(yuv: U8, colour: Colour) -> U8:
    """Return what a player shows: (height, width, 3) uint8, BGR."""
    height, width = yuv.shape[0] * 2 // 3, yuv.shape[1]
    return ToBgr(width, height)(yuv_to_frame(yuv, colour))


class ToPlanes:
    """Converts decoded pictures to upright planes of one even size. Keep one for each source.

    A picture that is one row or column too large loses its last; others are scaled. 4:2:0 in 8
    bits is copied, other YUV keeps its matrix and range, and a picture that is `still`, RGB, grey,
    transparent or of a wide gamut becomes BT.709.
    """

    def __init__(
        self,
        width: int,
        height: int,
        orientation: int = 1,
        *,
        still: bool = False,
        conversion: Conversion | None = None,
        background: Background = WHITE,
    ) -> None:
        """`width` and `height` are those of the upright picture; an odd one is lowered by one."""
        self.width, self.height = width - width % 2, height - height % 2
        self._turn, self._still, self._conversion, self._background = orientation, still, conversion, background
        self._stored = (self.height, self.width) if orientation in SIDEWAYS else (self.width, self.height)
        self._reformatter, self._to_yuv = VideoReformatter(), ToYuv()
        self._to_bgr: ToBgr | None = None

    def __call__(self, frame: av.VideoFrame) -> U8:
        """Return the planes as a new array, (height * 3 / 2, width) uint8."""
        if not self._is_direct(frame) or self._is_displaced(frame):
            return self._convert_through_bgr(frame)
        width, height = self._stored
        source = self._to_planar(frame)
        planes = (view_plane(source, n)[: height // size, : width // size] for n, size in enumerate((1, 2, 2)))
        return self._join_planes(apply_orientation(plane, self._turn) for plane in planes)

    def convert_bgr(self, bgr: U8) -> U8:
        """Return the planes of an upright BGR picture, at most one row or column too large."""
        frame = self._to_yuv(bgr[: self.height, : self.width])
        return self._join_planes(view_plane(frame, number) for number in range(3))

    def read_colour(self, frame: av.VideoFrame) -> Colour:
        """Return the frame's tags, with a matrix where scaling would change the guess."""
        if not self._is_direct(frame):
            return BT709
        guessed = resolve_matrix(UNSPECIFIED, frame.width, frame.height)
        kept = frame.colorspace != UNSPECIFIED or guessed == resolve_matrix(UNSPECIFIED, self.width, self.height)
        return Colour(frame.color_primaries, frame.color_trc, frame.colorspace if kept else guessed, _read_range(frame))

    def _is_direct(self, frame: av.VideoFrame) -> bool:
        kind = frame.format
        return not (self._still or self._conversion or kind.is_rgb or kind.has_palette) and len(kind.components) == 3

    def _fits(self, frame: av.VideoFrame) -> bool:
        width, height = self._stored
        return 0 <= frame.width - width <= 1 and 0 <= frame.height - height <= 1

    def _to_planar(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame in 4:2:0 and 8 bits, not turned, at most one row or column too large."""
        if self._fits(frame) and frame.format.name in ("yuv420p", "yuvj420p"):
            return frame
        size = (frame.width, frame.height) if self._fits(frame) else self._stored
        matrix = resolve_matrix(frame.colorspace, frame.width, frame.height)
        reach = ColorRange.JPEG if _read_range(frame) == ColorRange.JPEG else ColorRange.MPEG
        asked = {"src_colorspace": matrix, "dst_colorspace": matrix, "src_color_range": reach, "dst_color_range": reach}
        return self._reformatter.reformat(frame, *size, "yuv420p", interpolation=_SCALED, threads=1, **asked)

    def _is_displaced(self, frame: av.VideoFrame) -> bool:
        """Whether an odd size and a turn shift the blocks of 2 x 2 pixels: BGR is needed then."""
        width, height = (frame.height, frame.width) if self._turn in SIDEWAYS else (frame.width, frame.height)
        across, down = self._turn in MIRRORED_ACROSS and width % 2, self._turn in MIRRORED_DOWN and height % 2
        return self._fits(frame) and bool(across or down)

    def _convert_through_bgr(self, frame: av.VideoFrame) -> U8:
        if self._to_bgr is None:
            width, height = (frame.width, frame.height) if self._fits(frame) else self._stored
            size = (height, width) if self._turn in SIDEWAYS else (width, height)
            self._to_yuv = ToYuv(self.read_colour(frame))
            self._to_bgr = ToBgr(*size, self._turn, self._conversion, background=self._background)
        return self.convert_bgr(self._to_bgr(frame))

    def _join_planes(self, parts: Iterable[U8]) -> U8:
        picture = np.empty((self.height * 3 // 2, self.width), np.uint8)
        for target, part in zip(split_planes(picture), parts, strict=True):
            target[:] = part
        return picture


class PatchedPlanes:
    """Converts BGR pictures to planes that differ from one picture, (h, w, 3) uint8, in a rectangle alone.

    `rect` is x0, y0, x1, y1 in pixels; width and height of the picture are even. The planes are those that
    a conversion of the whole picture gives, at a part of its cost.
    """

    def __init__(self, picture: U8, rect: tuple[int, int, int, int], colour: Colour) -> None:
        height, width = picture.shape[:2]
        (x0, y0), (x1, y1) = (
            (edge // 2 * 2 - _APART for edge in rect[:2]),
            (edge // 2 * 2 + _APART for edge in rect[2:]),
        )
        self._rect = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
        self._to_yuv = ToYuv(colour)
        self._planes = np.empty((height * 3 // 2, width), np.uint8)
        self._patch(self._planes, picture, (0, 0, width, height))

    def convert(self, picture: U8) -> U8:
        """Return the planes of a picture as a new array, (height * 3 / 2, width) uint8."""
        planes = self._planes.copy()
        self._patch(planes, picture, self._rect)
        return planes

    def _patch(self, planes: U8, picture: U8, rect: tuple[int, int, int, int]) -> None:
        x0, y0, x1, y1 = rect
        if x0 >= x1 or y0 >= y1:
            return
        frame = self._to_yuv(picture[y0:y1, x0:x1])
        for number, plane in enumerate(split_planes(planes)):
            size = 2 if number else 1
            part = plane[y0 // size : y1 // size, x0 // size : x1 // size]
            part[:] = view_plane(frame, number)[: part.shape[0], : part.shape[1]]


class PlanesEditor:
    """Opens parts of the planes of pictures of (width, height), both even, in one colour, to be drawn into in BGR.

    All samples around such a part stay those of the source.
    """

    def __init__(self, width: int, height: int, colour: Colour) -> None:
        self.size = (width, height)
        self._colour = replace(colour, matrix=resolve_matrix(colour.matrix, width, height))
        self._to_yuv = ToYuv(self._colour)

    @contextmanager
    def open_part(self, planes: U8, rect: tuple[int, int, int, int]) -> Iterator[tuple[U8, tuple[int, int]]]:
        """Yield (h, w, 3) uint8 BGR, and x and y of its first pixel: what the planes show in `rect` and a little
        around it. `rect` is x0, y0, x1, y1 in pixels. What is drawn in it is in the planes afterwards.
        """
        x0, y0, x1, y1 = self._clip(rect, 0)
        left, top, right, bottom = self._clip(rect, _APART)
        if x0 >= x1 or y0 >= y1:
            yield np.empty((0, 0, 3), np.uint8), (x0, y0)
            return
        frame = av.VideoFrame(right - left, bottom - top, "yuv420p")
        for number, plane in enumerate(split_planes(planes)):
            size = 2 if number else 1
            view_plane(frame, number)[:] = plane[top // size : bottom // size, left // size : right // size]
        part = ToBgr(right - left, bottom - top)(tag_frame(frame, self._colour))
        yield part, (left, top)
        drawn = self._to_yuv(part)
        for number, plane in enumerate(split_planes(planes)):
            size = 2 if number else 1
            rows, columns = slice(y0 // size, y1 // size), slice(x0 // size, x1 // size)
            source = view_plane(drawn, number)[(y0 - top) // size :, (x0 - left) // size :]
            plane[rows, columns] = source[: rows.stop - rows.start, : columns.stop - columns.start]

    def _clip(self, rect: tuple[int, int, int, int], around: int) -> tuple[int, int, int, int]:
        """Return the rectangle with so many pixels around it, at even edges, cut to the picture."""
        left, top = (max(0, edge // 2 * 2 - around) for edge in rect[:2])
        right, bottom = (-(-edge // 2) * 2 for edge in rect[2:])
        return left, top, min(self.size[0], right + around), min(self.size[1], bottom + around)


def _read_range(frame: av.VideoFrame) -> int:
    return int(ColorRange.JPEG) if frame.format.name.startswith("yuvj") else frame.color_range
