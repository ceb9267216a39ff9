"""Convert between FFmpeg's frames and BGR arrays: colour, alpha, size and orientation, exactly."""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from models.arrays import F32, U8, U16
from models.media.pictures.background import WHITE, Background
from models.media.pictures.gamut import Conversion, CurveConversion
from models.types import Colour

# swscale's shortcuts are eight times as fast and darken a picture by one level in every pass: frames here pass twice.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
_SAME_SIZE = int(Interpolation.BILINEAR | _EXACT)
_SCALED = int(Interpolation.BICUBIC | _EXACT)
_TO_YUV = int(Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP)

UNSPECIFIED = 2
"""The number that means "unspecified" for matrix, primaries and transfer."""

_SHARES = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
_SHARES |= dict.fromkeys((5, 6), (0.299, 0.114))
"""Weights of red and blue in the luma, by number of the matrix: those that swscale supports."""
_HD_HEIGHT, _HD_WIDTH = 720, 1280

BT709 = Colour()

Plane = TypeVar("Plane", U8, U16)

SIDEWAYS = {5, 6, 7, 8}
"""EXIF orientations that swap width and height."""
MIRRORED_ACROSS, MIRRORED_DOWN = {2, 3, 6, 7}, {3, 4, 7, 8}
"""Those that reverse, after that, the order of columns, and of rows."""

_BY_MATRIX = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
_BY_ANGLE = {0: 1, -90: 6, 90: 8, 180: 3, -180: 3}


class ToBgr:
    """Converts decoded pictures to upright BGR of one size. Keep one for each source, because it
    caches its tables.

    Transparency shows the background. A video without colour tags is BT.709 from 720 lines on,
    else BT.601.
    """

    def __init__(
        self,
        width: int,
        height: int,
        orientation: int = 1,
        conversion: Conversion | None = None,
        untagged: int = UNSPECIFIED,
        background: Background = WHITE,
    ) -> None:
        """`width` and `height` are those of the upright picture, in pixels.

        `untagged` is the matrix of a video without colour tags, whatever its size.
        """
        self._untagged, self._background = untagged, background
        self.width, self.height = width, height
        self.stored = (height, width) if orientation in SIDEWAYS else (width, height)
        self.orientation = orientation
        self._conversion, self._reformatter = conversion, VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> U8:
        """Return a new array, (height, width, 3) uint8, BGR."""
        opacity: U8 | U16 | None
        if isinstance(self._conversion, CurveConversion):
            bgr, opacity = self._convert_deep(frame, self._conversion)
        else:
            bgr, opacity = self._to_bgr(frame)
            bgr = bgr if self._conversion is None else self._conversion.convert(bgr)
        return bgr if opacity is None else self._background.blend(bgr, opacity)

    def _convert_deep(self, frame: av.VideoFrame, conversion: CurveConversion) -> tuple[U8, U16 | None]:
        """Convert from 16 bits, because curves of HDR need them. Return BGR, and the opacity."""
        planar = self._reformat(frame, "gbrap16le" if has_alpha(frame) else "gbrp16le")
        green, blue, red, *opacity = (
            apply_orientation(view_deep_plane(planar, number), self.orientation) for number in range(len(planar.planes))
        )
        bgr = conversion.convert(np.dstack([blue, green, red]) >> np.uint16(4))
        return bgr, opacity[0] >> np.uint16(8) if opacity else None

    def _to_bgr(self, frame: av.VideoFrame) -> tuple[U8, U8 | None]:
        planar = self._reformat(frame, "gbrap" if has_alpha(frame) else "gbrp")
        green, blue, red, *opacity = (
            apply_orientation(view_plane(planar, number), self.orientation) for number in range(len(planar.planes))
        )
        return np.asarray(cv2.merge((blue, green, red)), np.uint8), opacity[0] if opacity else None

    def _reformat(self, frame: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
        width, height = self.stored
        return self._reformatter.reformat(
            frame,
            width,
            height,
            pix_fmt,
            src_colorspace=None if frame.format.is_rgb else self._choose_matrix(frame),
            interpolation=_SAME_SIZE if (width, height) == (frame.width, frame.height) else _SCALED,
            threads=1,
        )

    def _choose_matrix(self, frame: av.VideoFrame) -> int:
        told = self._untagged if frame.colorspace == UNSPECIFIED else frame.colorspace
        return resolve_matrix(told, frame.width, frame.height)


class ToYuv:
    """Converts BGR arrays to frames for H.264: yuv420p in the matrix and range of `colour`."""

    def __init__(self, colour: Colour = BT709) -> None:
        self._colour, self._reformatter = colour, VideoReformatter()

    def __call__(self, bgr: U8) -> av.VideoFrame:
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(bgr), "bgr24"),
            format="yuv420p",
            dst_colorspace=resolve_matrix(self._colour.matrix, bgr.shape[1], bgr.shape[0]),
            dst_color_range=ColorRange.JPEG if self._colour.range == ColorRange.JPEG else ColorRange.MPEG,
            interpolation=_TO_YUV,
            threads=1,
        )


class ToYuva:
    """Converts BGRA arrays to frames for ProRes 4444: BT.709 in 10 bits, with transparency."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, bgra: U8) -> av.VideoFrame:
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(bgra), "bgra"),
            format="yuva444p10le",
            dst_colorspace=BT709.matrix,
            dst_color_range=ColorRange.MPEG,
            interpolation=_SAME_SIZE,
            threads=1,
        )


def has_alpha(frame: av.VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def read_orientation(frame: av.VideoFrame) -> int:
    """Return the EXIF orientation, 1 to 8, of the display matrix in a frame's side data."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not support every kind of side data that FFmpeg attaches
        return _BY_ANGLE.get(round(frame.rotation), 1)
    if matrix is None:
        return 1
    data: Any = matrix  # a buffer, which its type stub doesn't say
    a, b, _, c, d = (round(value / 65536) for value in struct.unpack("=5i", bytes(data)[:20]))
    return _BY_MATRIX.get((a, b, c, d), 1)


def apply_orientation(plane: Plane, orientation: int) -> Plane:
    """Return a view of `plane`, upright by its EXIF orientation."""
    if orientation >= 5:
        plane = plane.T
    if orientation in MIRRORED_ACROSS:
        plane = plane[:, ::-1]
    return plane[::-1] if orientation in MIRRORED_DOWN else plane


def resolve_matrix(matrix: int, width: int, height: int) -> int:
    """Return `matrix`, or the one that players assume for that size where it is unspecified."""
    if matrix in _SHARES:
        return matrix
    return BT709.matrix if height >= _HD_HEIGHT or width >= _HD_WIDTH else int(Colorspace.ITU601)


def bgr_to_yuv_matrix(colour: Colour, width: int, height: int) -> F32:
    """Return (3, 4) float32: factors and offset from 8-bit B, G, R to 8-bit Y, U, V."""
    red, blue = _SHARES[resolve_matrix(colour.matrix, width, height)]
    luma = np.array([blue, 1 - red - blue, red])
    rows = np.array([luma, ([1, 0, 0] - luma) / (2 - 2 * blue), ([0, 0, 1] - luma) / (2 - 2 * red)])
    full = colour.range == ColorRange.JPEG
    scale, offset = (np.ones(3), [0, 128, 128]) if full else (np.array([219, 224, 224]) / 255, [16, 128, 128])
    return np.column_stack([rows * scale[:, None], offset]).astype(np.float32)


def view_plane(frame: av.VideoFrame, number: int) -> U8:
    """Return a view of one plane's 8-bit samples, (h, w), without the padding."""
    plane = frame.planes[number]
    memory: Any = plane  # PyAV's planes are buffers; its type stubs don't say so
    rows: U8 = np.frombuffer(memory, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def view_deep_plane(frame: av.VideoFrame, number: int) -> U16:
    """Return a view of one plane's 16-bit samples, (h, w), without the padding."""
    plane = frame.planes[number]
    memory: Any = plane
    rows: U16 = np.frombuffer(memory, np.uint16).reshape(-1, plane.line_size // 2)
    return rows[: plane.height, : plane.width]
