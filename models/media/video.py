"""Frames of a video by number, at a constant rate, forwards and backwards, in bounded memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

import av

from models.media.colour import Bgr, ToBgr, orientation_of
from models.media.opening import reading, unreadable
from models.media.picture import open_picture, read_timeline, shown_size

CHUNK_BYTES = 24 << 20
CHUNK_FRAMES = 24


class VideoFrames:
    """Frame k is what a player shows k / fps seconds after the first one, upright and with square pixels.

    Source frames are decoded in chunks and the last two chunks are kept, at most about 48 MiB: walking forwards decodes
    each frame once, walking backwards seeks once a chunk. `width` and `height` scale. Raises EngineError
    avatar_unreadable about `name`.
    """

    def __init__(
        self, path: Path, fps: Fraction, width: int | None = None, height: int | None = None, *, name: str = ""
    ) -> None:
        self._path, self._name, self._fps = path, name or path.name, fps
        timeline = read_timeline(path, self._name)
        self._times = timeline.times
        self._count = max(1, round(timeline.duration * fps))
        self._wanted = (width, height) if width and height else None
        self._files = ExitStack()
        self._to_bgr: ToBgr | None = None
        self._chunk = CHUNK_FRAMES
        self._chunks: dict[int, list[Bgr]] = {}
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._files.close()

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> Bgr:
        """Frame `index`, (h, w, 3) uint8 BGR, the caller's own. IndexError outside 0 .. len - 1."""
        if not 0 <= index < self._count:
            raise IndexError(f"{self._name} has {self._count} frames, no number {index}")
        source = max(0, bisect_right(self._times, self._times[0] + index / self._fps) - 1)
        with reading(self._name, "avatar"):
            return self._source(source).copy()

    def _source(self, source: int) -> Bgr:
        number = source // self._chunk
        if number not in self._chunks:
            frames = self._load(number * self._chunk)
            number = source // self._chunk  # the first frame may have shown that chunks must be shorter
            while len(self._chunks) > 1:
                del self._chunks[next(iter(self._chunks))]
            self._chunks[number] = frames
        return self._chunks[number][source % self._chunk]

    def _load(self, first: int) -> list[Bgr]:
        if first != self._next:
            self._seek(first)
        found: list[Bgr] = []
        for frame in self._decoder:
            if self._next >= first:
                found.append(self._bgr(frame))
            self._next += 1
            if len(found) == min(self._chunk, len(self._times) - first):
                return found
        raise unreadable("avatar", f"{self._name} ends after {self._next} of its {len(self._times)} frames")

    def _bgr(self, frame: av.VideoFrame) -> Bgr:
        if self._to_bgr is None:
            width, height = self._wanted or shown_size(frame, self._stream, None)
            self._to_bgr = ToBgr(width, height, orientation_of(frame))
        return self._to_bgr(frame)

    def _open(self) -> None:
        """From the start; also where a container can't seek."""
        self._files.close()
        self._container, self._stream = self._files.enter_context(open_picture(self._path, self._name))
        self._decoder: Iterator[av.VideoFrame] = self._container.decode(self._stream)
        self._next = 0
        if self._to_bgr is None:
            self._measure()

    def _measure(self) -> None:
        """Choose the length of a chunk by the size of a frame."""
        frame = next(self._decoder, None)
        if frame is None:
            raise unreadable("avatar", f"{self._name} holds no picture that can be decoded")
        self._bgr(frame)
        bytes_each = self._to_bgr.shape[0] * self._to_bgr.shape[1] * 3 if self._to_bgr else 1
        self._chunk = max(1, min(CHUNK_FRAMES, CHUNK_BYTES // bytes_each))
        self._decoder = chain([frame], self._decoder)

    def _seek(self, first: int) -> None:
        """To the key frame at or before source frame `first`; from the start where the container lands elsewhere."""
        base = self._stream.time_base or Fraction(1)
        try:
            self._container.seek(int(self._times[first] / base), stream=self._stream, backward=True)
        except av.FFmpegError:
            return self._open()
        decoder = self._container.decode(self._stream)
        frame = next(decoder, None)
        landed = self._number_of(frame)
        if frame is None or landed is None or landed > first:
            return self._open()
        self._decoder, self._next = chain([frame], decoder), landed
        return None

    def _number_of(self, frame: av.VideoFrame | None) -> int | None:
        if frame is None or frame.pts is None or frame.time_base is None:
            return None
        time = frame.pts * frame.time_base
        number = bisect_right(self._times, time) - 1
        return number if number >= 0 and self._times[number] == time else None
