"""The frames of an avatar in the size of the result: BGR for networks, YUV for the encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models import media
from models.arrays import U8
from models.media.pictures.colour import UNSPECIFIED
from models.musetalk.geometry import Size
from models.types import Inspection, Request

BT601 = 5
"""The matrix's number in ITU-T H.273; swscale assumes it where a video tells none."""


def open_yuv(request: Request, inspection: Inspection) -> media.VideoFrames:
    """Open the avatar's frames as H.264 stores them, in the video's own colour.

    They are (height * 3 / 2, width) uint8.

    Raises EngineError avatar_unreadable and the other errors of `media.VideoFrames`.
    """
    return _open_video(request, inspection, (inspection.width, inspection.height), as_yuv=True)


class BgrFrames:
    """The avatar's frames as (height, width, 3) uint8 BGR.

    An odd last row or column is cut off, as YUV has none.

    `reference`: a video without colour tags is BT.601 whatever its size, as the reference reads it.

    Raises EngineError avatar_unreadable and the other errors of `media.VideoFrames`.
    """

    def __init__(
        self, request: Request, inspection: Inspection, window: range | None = None, *, reference: bool = False
    ) -> None:
        """Open the avatar; only the frames of `window` count where it is given."""
        self._width, self._height = inspection.width, inspection.height
        untagged = BT601 if reference else UNSPECIFIED
        self._video = _open_video(request, inspection, None, untagged=untagged)
        if not self._has_size_of_result():
            self._video.close()
            size = inspection.width, inspection.height
            self._video = _open_video(request, inspection, size, untagged=untagged)
        self._window = window or range(len(self._video))

    def _has_size_of_result(self) -> bool:
        return 0 <= self._video.width - self._width <= 1 and 0 <= self._video.height - self._height <= 1

    def __enter__(self) -> BgrFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self._video.close()

    def __len__(self) -> int:
        return len(self._window)

    def read(self, frame: int) -> U8:
        """Return the frame with this number, counted from 0 in the window."""
        return np.ascontiguousarray(self._video.read(self._window[frame])[: self._height, : self._width])


def _open_video(
    request: Request,
    inspection: Inspection,
    size: Size | None,
    *,
    as_yuv: bool = False,
    untagged: int = UNSPECIFIED,
) -> media.VideoFrames:
    width, height = size or (None, None)
    return media.VideoFrames(
        request.files.avatar,
        inspection.rate,
        width,
        height,
        name=Path(request.avatar).name,
        limits=request.limits,
        as_yuv=as_yuv,
        untagged=untagged,
    )
