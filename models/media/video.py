"""Frames of a video by number, at a constant rate, in any order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Self

from models.arrays import U8
from models.media.opening import USUAL, unreadable_file
from models.media.pictures.background import WHITE, Background
from models.media.pictures.colour import UNSPECIFIED
from models.media.source import MakePicture, open_source
from models.types import Limits

_CACHE_BYTES = 64 << 20
_CACHE_FRAMES = 32


class VideoFrames:
    """A video at a constant rate: frame n is what a player shows n / fps seconds after the first
    one.

    Frames are upright, with square pixels, transparency over the background. Reading forwards or backwards
    is cheap: at most 32 frames or 64 MiB are kept, and reading backwards decodes a run of frames
    at once. An image is a video of one frame.
    """

    def __init__(
        self,
        path: Path,
        fps: Fraction,
        width: int | None = None,
        height: int | None = None,
        *,
        name: str = "",
        limits: Limits = USUAL,
        as_yuv: bool = False,
        untagged: int = UNSPECIFIED,
        background: Background = WHITE,
    ) -> None:
        """`width` and `height` scale. Raises EngineError avatar_unreadable, avatar_too_large,
        video_too_long.

        `as_yuv`: frames are (height * 3 / 2, width), as H.264 stores them, in the `colour` that
        the video has. Those that are stored so are not converted, and an odd row or column is cut
        off instead of scaled away. `untagged`: see `open_source`.
        """
        self._name, self._fps = name or path.name, fps
        size = (width, height) if width and height else None
        self._source = open_source(
            path, self._name, limits, size, as_yuv=as_yuv, untagged=untagged, background=background
        )
        self.width, self.height, self.colour = self._source.width, self._source.height, self._source.colour
        self._room = max(2, min(_CACHE_FRAMES, _CACHE_BYTES // (3 * self.width * self.height)))
        self._kept: OrderedDict[int, U8] = OrderedDict()
        self._walk: Iterator[tuple[int, MakePicture]] = iter(())
        self._decoded: tuple[int, MakePicture] | None = None
        self._asked = 0
        self._early_s = self._source.timeline.measure_tolerance(fps)
        self._length = self._source.timeline.count_frames(fps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._kept.clear()
        self._walk, self._decoded = iter(()), None
        self._source.close()

    def __len__(self) -> int:
        return self._length

    def read(self, index: int) -> U8:
        """Return frame `index` as a new array, (height, width, 3) uint8 BGR, or its planes.

        Raises IndexError, EngineError avatar_unreadable.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"{self._name} has {self._length} frames, there is no frame {index}")
        position = self._source.timeline.find_picture(index, self._fps, self._early_s)
        if position not in self._kept:
            self._decode(position)
        self._asked = position
        self._kept.move_to_end(position)
        return self._kept[position].copy()

    def _decode(self, position: int) -> None:
        """Decode up to `position`; when reading backwards, keep the pictures before it."""
        backwards = 0 < self._asked - position <= self._room
        first = max(0, position - self._room + 1) if backwards else position
        if not self._is_reachable(first):
            self._walk, self._decoded = self._source.read_pictures(first), None
        while self._decoded is None or self._decoded[0] < position:
            before, self._decoded = self._decoded, next(self._walk, None)
            if self._decoded is None or self._decoded[0] > position:
                self._substitute(position, before)
                return
            if first <= self._decoded[0] < position:
                self._keep(self._decoded[0], self._decoded[1]())
        self._keep(position, self._decoded[1]())

    def _is_reachable(self, first: int) -> bool:
        """Whether decoding on reaches `first` as fast as a seek to its key picture."""
        timeline = self._source.timeline
        if self._decoded is None or self._decoded[0] > first:
            return False
        return timeline.find_key(first) == timeline.find_key(self._decoded[0]) or first - self._decoded[0] <= 1

    def _substitute(self, position: int, before: tuple[int, MakePicture] | None) -> None:
        """Use the last picture before one that did not decode, as a player does."""
        shown = before or self._decoded
        if shown is None:
            raise unreadable_file("avatar", f"{self._name}: frame {position} and those around it cannot be decoded")
        self._keep(position, shown[1]())
        if self._decoded is None:
            self._decoded = before

    def _keep(self, position: int, picture: U8) -> None:
        self._kept[position] = picture
        self._kept.move_to_end(position)
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)
