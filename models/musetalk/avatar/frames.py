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
    size, over = (inspection.width, inspection.height), media.read_background(request)
    return _open_video(request, inspection, size, over, as_yuv=True)


class BgrFrames:
    """The avatar's frames as (height, width, 3) uint8 BGR.

    An odd last row or column is cut off, as YUV has none.

    `reference`: a video without colour tags is BT.601 whatever its size, as the reference reads it.

    Raises EngineError avatar_unreadable and the other errors of `media.VideoFrames`.
    """

    def __init__(
        self,
        request: Request,
        inspection: Inspection,
        window: range | None = None,
        over: media.Background | None = None,
        *,
        reference: bool = False,
    ) -> None:
        """Open the avatar; only the frames of `window` count where it is given.

        `over`: what its transparent pixels show, None: what the job says.
        """
        over = over or media.read_background(request)
        self._width, self._height = inspection.width, inspection.height
        untagged = BT601 if reference else UNSPECIFIED
        self._video = _open_video(request, inspection, None, over, untagged=untagged)
        if not self._has_size_of_result():
            self._video.close()
            size = inspection.width, inspection.height
            self._video = _open_video(request, inspection, size, over, untagged=untagged)
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


class OpaqueFrames:
    """The avatar's frames over white with how opaque they are, (height, width, 4) uint8."""

    def __init__(self, request: Request, inspection: Inspection, *, reference: bool = False) -> None:
        """Open the avatar twice; `reference` as in `BgrFrames`."""
        self._white = BgrFrames(request, inspection, over=media.WHITE, reference=reference)
        self._black = BgrFrames(request, inspection, over=media.BLACK, reference=reference)

    def __enter__(self) -> OpaqueFrames:
        return self

    def __exit__(self, *error: object) -> None:
        self._white.__exit__(*error)
        self._black.__exit__(*error)

    def read(self, frame: int) -> U8:
        white, black = self._white.read(frame), self._black.read(frame)
        return np.dstack([white, media.measure_opacity(white, black)])


def _open_video(
    request: Request,
    inspection: Inspection,
    size: Size | None,
    over: media.Background,
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
        background=over,
    )
