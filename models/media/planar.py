"""Frames as H.264 stores them: three planes in one array, not converted where the source has them already."""

from __future__ import annotations

from collections.abc import Iterable

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from models.media.colour import (
    BT709,
    MIRRORED_ACROSS,
    MIRRORED_DOWN,
    SIDEWAYS,
    UNTOLD,
    Bgr,
    ToBgr,
    ToYuv,
    known_matrix,
    plane_of,
    turned,
)
from models.types import Colour

Yuv = npt.NDArray[np.uint8]
"""(height * 3 / 2, width): the luma, then both chroma planes of half its width and height; sizes are even."""

_SCALED = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND)


def split_planes(yuv: Yuv) -> tuple[Yuv, Yuv, Yuv]:
    """Views of the luma (h, w) and of both chroma planes (h / 2, w / 2)."""
    height, width = yuv.shape[0] * 2 // 3, yuv.shape[1]
    first, second = yuv[height:].reshape(2, height // 2, width // 2)
    return yuv[:height], first, second


def frame_of(yuv: Yuv, colour: Colour) -> av.VideoFrame:
    """A copy, as FFmpeg wants it."""
    height, width = yuv.shape[0] * 2 // 3, yuv.shape[1]
    frame = av.VideoFrame(width, height, "yuv420p")
    for number, plane in enumerate(split_planes(yuv)):
        plane_of(frame, number)[:] = plane
    return tagged(frame, colour)


def tagged(frame: av.VideoFrame, colour: Colour) -> av.VideoFrame:
    frame.colorspace, frame.color_range = colour.matrix, colour.range
    frame.color_primaries, frame.color_trc = colour.primaries, colour.transfer
    return frame


def yuv_to_bgr(yuv: Yuv, colour: Colour) -> Bgr:
    """(height, width, 3) uint8, BGR: what a player shows."""
    height, width = yuv.shape[0] * 2 // 3, yuv.shape[1]
    return ToBgr(width, height)(frame_of(yuv, colour))


class ToPlanes:
    """Turns decoded pictures into upright planes of one even size. Keep one for each source.

    A picture that is one row or column too large loses its last; others are scaled. What is stored as 4:2:0 in 8 bits
    is copied, other YUV keeps its matrix and range, and whatever is `still`, RGB, grey or transparent becomes BT.709.
    """

    def __init__(self, width: int, height: int, orientation: int = 1, *, still: bool = False) -> None:
        """`width` and `height` are those of the upright picture, in pixels; an odd one is lessened by one."""
        self.width, self.height = width - width % 2, height - height % 2
        self._turn, self._still = orientation, still
        self._stored = (self.height, self.width) if orientation in SIDEWAYS else (self.width, self.height)
        self._reformatter, self._to_yuv = VideoReformatter(), ToYuv()
        self._to_bgr: ToBgr | None = None

    def __call__(self, frame: av.VideoFrame) -> Yuv:
        """(height * 3 / 2, width) uint8; the caller's own."""
        if not self._direct(frame) or self._displaced(frame):
            return self._through_bgr(frame)
        width, height = self._stored
        source = self._planar(frame)
        stored = (plane_of(source, number)[: height // size, : width // size] for number, size in enumerate((1, 2, 2)))
        return self._filled(turned(plane, self._turn) for plane in stored)

    def of_bgr(self, bgr: Bgr) -> Yuv:
        """The same from an upright BGR picture, at most one row or column too large."""
        frame = self._to_yuv(bgr[: self.height, : self.width])
        return self._filled(plane_of(frame, number) for number in range(3))

    def colour_of(self, frame: av.VideoFrame) -> Colour:
        """What this makes of such a frame has the frame's tags; a matrix only where scaling would change the guess."""
        if not self._direct(frame):
            return BT709
        guessed = known_matrix(UNTOLD, frame.width, frame.height)
        kept = frame.colorspace != UNTOLD or guessed == known_matrix(UNTOLD, self.width, self.height)
        return Colour(frame.color_primaries, frame.color_trc, frame.colorspace if kept else guessed, _range_of(frame))

    def _direct(self, frame: av.VideoFrame) -> bool:
        kind = frame.format
        return not (self._still or kind.is_rgb or kind.has_palette) and len(kind.components) == 3

    def _fits(self, frame: av.VideoFrame) -> bool:
        width, height = self._stored
        return 0 <= frame.width - width <= 1 and 0 <= frame.height - height <= 1

    def _planar(self, frame: av.VideoFrame) -> av.VideoFrame:
        """In 4:2:0 and 8 bits, as stored, and large enough."""
        if self._fits(frame) and frame.format.name in ("yuv420p", "yuvj420p"):
            return frame
        size = (frame.width, frame.height) if self._fits(frame) else self._stored
        matrix = known_matrix(frame.colorspace, frame.width, frame.height)
        reach = ColorRange.JPEG if _range_of(frame) == ColorRange.JPEG else ColorRange.MPEG
        asked = {"src_colorspace": matrix, "dst_colorspace": matrix, "src_color_range": reach, "dst_color_range": reach}
        return self._reformatter.reformat(frame, *size, "yuv420p", interpolation=_SCALED, threads=1, **asked)

    def _displaced(self, frame: av.VideoFrame) -> bool:
        """Whether an odd size and a turn put the blocks of 2 x 2 pixels elsewhere: that takes a way through BGR."""
        width, height = (frame.height, frame.width) if self._turn in SIDEWAYS else (frame.width, frame.height)
        across, down = self._turn in MIRRORED_ACROSS and width % 2, self._turn in MIRRORED_DOWN and height % 2
        return self._fits(frame) and bool(across or down)

    def _through_bgr(self, frame: av.VideoFrame) -> Yuv:
        if self._to_bgr is None:
            width, height = (frame.width, frame.height) if self._fits(frame) else self._stored
            size = (height, width) if self._turn in SIDEWAYS else (width, height)
            self._to_bgr, self._to_yuv = ToBgr(*size, self._turn), ToYuv(self.colour_of(frame))
        return self.of_bgr(self._to_bgr(frame))

    def _filled(self, parts: Iterable[Yuv]) -> Yuv:
        picture = np.empty((self.height * 3 // 2, self.width), np.uint8)
        for target, part in zip(split_planes(picture), parts, strict=True):
            target[:] = part
        return picture


def _range_of(frame: av.VideoFrame) -> int:
    return int(ColorRange.JPEG) if frame.format.name.startswith("yuvj") else frame.color_range
