"""The frames of an avatar in the size of the result: as pixels for the networks, as planes for the eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models import media
from models.media import Bgr
from models.types import Inspection, Request


def open_yuv(request: Request, outline: Inspection) -> media.VideoFrames:
    """Frames as H.264 stores them, (height * 3 / 2, width), in the video's own colour."""
    return _open_video(request, outline, (outline.width, outline.height), as_yuv=True)


class BgrFrames:
    """Frames as BGR, (height, width, 3) uint8. An odd row or column is cut off, as it is from the planes."""

    def __init__(self, request: Request, outline: Inspection) -> None:
        self._width, self._height = outline.width, outline.height
        self._video = _open_video(request, outline, None)
        if not self._fits():
            self._video.close()
            self._video = _open_video(request, outline, (outline.width, outline.height))

    def _fits(self) -> bool:
        return 0 <= self._video.width - self._width <= 1 and 0 <= self._video.height - self._height <= 1

    def __enter__(self) -> BgrFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self._video.close()

    def __len__(self) -> int:
        return len(self._video)

    def read(self, frame: int) -> Bgr:
        return np.ascontiguousarray(self._video.read(frame)[: self._height, : self._width])


def _open_video(
    request: Request, outline: Inspection, size: tuple[int, int] | None, *, as_yuv: bool = False
) -> media.VideoFrames:
    width, height = size or (None, None)
    return media.VideoFrames(
        request.files.avatar,
        outline.rate,
        width,
        height,
        name=Path(request.avatar).name,
        limits=request.limits,
        as_yuv=as_yuv,
    )
