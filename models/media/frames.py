"""Frames of a video by number, at a constant rate, forwards and backwards."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from models.media.container import complaint, unreadable
from models.media.picture import display_size, picture_stream, shown_times

Bgr = npt.NDArray[np.uint8]

CHUNK_BYTES = 48 << 20
LONGEST_CHUNK = 32
TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


class VideoFrames:
    """Frame k is what a player shows at k / fps seconds after the first frame, rotation and pixel aspect applied.

    Frames are decoded in chunks, of which two are kept: walking backwards costs one seek a chunk, and memory is bounded.
    `width` and `height` scale the frames.
    """

    def __init__(
        self, path: Path, fps: Fraction, width: int | None = None, height: int | None = None, *, name: str = ""
    ) -> None:
        self._path, self._name = path, name or path.name
        with av.open(str(path), metadata_errors="replace") as container:
            self._times = shown_times(container, picture_stream(container, self._name))
        span = self._times[-1] - self._times[0]
        step = span / (len(self._times) - 1) if span else 1 / fps
        self._count = max(1, round((span + step) * fps))
        self._fps = fps
        self._container = av.open(str(path), metadata_errors="replace")
        self._stream = picture_stream(self._container, self._name)
        self._stream.codec_context.thread_count = 1
        self._size = (width, height) if width and height else None
        self._decoder = self._container.decode(self._stream)
        self._next = 0
        self._chunks: dict[int, list[Bgr]] = {}
        self._chunk = LONGEST_CHUNK

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._container.close()

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> Bgr:
        """Frame `index` of len(self), (h, w, 3) uint8 BGR. The array is the caller's only until it is changed: copy it."""
        if not 0 <= index < self._count:
            raise IndexError(f"{self._name} has {self._count} frames, not {index}")
        source = bisect_right(self._times, self._times[0] + Fraction(index) / self._fps) - 1
        number, within = divmod(source, self._chunk)
        if number not in self._chunks:
            self._load(number)
            number, within = divmod(source, self._chunk)
        return self._chunks[number][within]

    def _load(self, number: int) -> None:
        first = number * self._chunk
        wanted = min(self._chunk, len(self._times) - first)
        try:
            frames = self._decode(first, wanted)
        except av.error.FFmpegError as error:
            raise complaint(error, self._name, "avatar") from error
        if len(frames) < wanted:
            raise unreadable(self._name, "avatar", f"it ends after {first + len(frames)} of {len(self._times)} frames")
        while len(self._chunks) > 1:
            del self._chunks[next(iter(self._chunks))]
        self._chunks[number] = frames

    def _decode(self, first: int, count: int) -> list[Bgr]:
        if first != self._next:
            self._seek(first)
        found: list[Bgr] = []
        for frame in self._decoder:
            if self._next >= first:
                found.append(self._picture(frame))
            self._next += 1
            if len(found) == count:
                break
        return found

    def _seek(self, first: int) -> None:
        """To the last key frame that is shown at or before the source frame `first`."""
        base = self._stream.time_base or Fraction(1)
        self._container.seek(int(self._times[first] / base), stream=self._stream, backward=True)
        self._decoder = self._container.decode(self._stream)
        frame = next(iter(self._decoder), None)
        if frame is None or frame.pts is None:
            return self._rewind()
        at = bisect_right(self._times, frame.pts * (frame.time_base or base)) - 1
        if at > first:
            return self._rewind()
        self._next = at
        self._decoder = _chain(frame, self._decoder)
        return None

    def _rewind(self) -> None:
        """Open the file again: some containers can't seek, or only to a later frame."""
        self._container.close()
        self._container = av.open(str(self._path), metadata_errors="replace")
        self._stream = picture_stream(self._container, self._name)
        self._stream.codec_context.thread_count = 1
        self._decoder = self._container.decode(self._stream)
        self._next = 0

    def _picture(self, frame: VideoFrame) -> Bgr:
        bgr = to_bgr(frame)
        width, height = display_size(frame, self._stream)
        turn = TURNS.get(frame.rotation % 360)
        if turn is not None:
            bgr = np.asarray(cv2.rotate(bgr, turn), np.uint8)
        target = self._size or (width, height)
        if (bgr.shape[1], bgr.shape[0]) != target:
            smaller = target[0] < bgr.shape[1]
            bgr = np.asarray(cv2.resize(bgr, target, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC), np.uint8)
        return bgr


def _chain(first: VideoFrame, rest: object) -> object:
    yield first
    yield from rest  # type: ignore[misc]


def to_bgr(frame: VideoFrame) -> Bgr:
    """(h, w, 3) uint8; a frame that doesn't say its matrix is BT.709 from 720 rows on, else BT.601, as players take it."""
    source = frame.colorspace
    if source == 2:  # unspecified
        source = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    return np.ascontiguousarray(frame.to_ndarray(format="bgr24", src_colorspace=source))


_ = ColorRange
