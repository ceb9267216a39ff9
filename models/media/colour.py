"""Between FFmpeg's pictures and BGR arrays: matrix, range, alpha, scaling and turning, each done once and exactly."""

from __future__ import annotations

import struct
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

Bgr = npt.NDArray[np.uint8]

BT709 = 1
"""Number of the BT.709 primaries, transfer and matrix in a video's tags."""

# swscale's shortcuts are eight times as fast and darken a picture by one level in every pass: frames here pass twice.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
_SAME_SIZE = int(Interpolation.BILINEAR | _EXACT)
_SCALED = int(Interpolation.BICUBIC | _EXACT)
_TO_YUV = int(Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP)

_KNOWN_MATRICES = {1, 4, 5, 6, 7, 9}
_HD_HEIGHT, _HD_WIDTH = 720, 1280

SIDEWAYS = {5, 6, 7, 8}
"""EXIF orientations that swap width and height."""

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
    """Turns decoded pictures into upright BGR of one size. Keep one for each source: it keeps its tables.

    Transparency is composited over white. A video without colour tags is BT.709 from 720 lines on, else BT.601.
    """

    def __init__(self, width: int, height: int, orientation: int = 1) -> None:
        """`width` and `height` are those of the upright picture, in pixels."""
        self.stored = (height, width) if orientation in SIDEWAYS else (width, height)
        self.shape, self.orientation = (height, width, 3), orientation
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Bgr:
        """(height, width, 3) uint8, BGR; the caller's own."""
        alpha = any(component.is_alpha for component in frame.format.components)
        planar = self._reformat(frame, "gbrap" if alpha else "gbrp")
        green, blue, red, *opacity = (_plane(planar, number) for number in range(len(planar.planes)))
        bgr = np.empty(self.shape, np.uint8)
        for channel, plane in enumerate((blue, green, red)):
            shown = _over_white(plane, opacity[0]) if opacity else plane
            bgr[..., channel] = turned(shown, self.orientation)
        return bgr

    def _reformat(self, frame: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
        width, height = self.stored
        return self._reformatter.reformat(
            frame,
            width,
            height,
            pix_fmt,
            src_colorspace=None if frame.format.is_rgb else _matrix(frame),
            interpolation=_SAME_SIZE if (width, height) == (frame.width, frame.height) else _SCALED,
            threads=1,
        )


class ToYuv:
    """Turns BGR arrays into what H.264 stores: yuv420p, BT.709, limited range."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, bgr: Bgr) -> av.VideoFrame:
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(bgr), "bgr24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=_TO_YUV,
            threads=1,
        )


def orientation_of(frame: av.VideoFrame) -> int:
    """The EXIF number, 1 to 8, of the display matrix that a video's frame carries."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows not every kind of side data that FFmpeg attaches
        return _BY_ANGLE.get(round(frame.rotation), 1)
    if matrix is None:
        return 1
    data: Any = matrix  # a buffer, which its type stub doesn't say
    a, b, _, c, d = (round(value / 65536) for value in struct.unpack("=5i", bytes(data)[:20]))
    return _BY_MATRIX.get((a, b, c, d), 1)


def turned(plane: Bgr, orientation: int) -> Bgr:
    """A view of `plane` as its EXIF orientation wants it seen."""
    if orientation >= 5:
        plane = plane.T
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return plane[::-1] if orientation in (3, 4, 7, 8) else plane


def opaque(picture: Bgr) -> Bgr:
    """(h, w, 3 or 4) BGR or BGRA -> (h, w, 3) BGR over white."""
    return picture if picture.shape[2] == 3 else _over_white(picture[..., :3], picture[..., 3:])


def _matrix(frame: av.VideoFrame) -> int:
    if frame.colorspace in _KNOWN_MATRICES:
        return frame.colorspace
    return BT709 if frame.height >= _HD_HEIGHT or frame.width >= _HD_WIDTH else int(Colorspace.ITU601)


def _plane(frame: av.VideoFrame, number: int) -> Bgr:
    plane = frame.planes[number]
    memory: Any = plane  # PyAV's planes are buffers; its type stubs don't say so
    rows: Bgr = np.frombuffer(memory, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _over_white(plane: Bgr, opacity: Bgr) -> Bgr:
    wide = opacity.astype(np.uint16)
    return ((plane * wide + 255 * (255 - wide) + 127) // 255).astype(np.uint8)
