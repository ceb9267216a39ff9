"""The frames of a span: decoding, inpainting, blending and encoding overlap in threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from typing import Protocol

from models.arrays import U8
from models.media.prefetch import closing_all, prefetch
from models.musetalk.compositing.composite import Blend

FRAMES_AHEAD = 4
BATCHES_AHEAD = 2
_MAX_BLEND_BYTES = 128 << 20


class FrameReader(Protocol):
    """Frames by number, uint8: BGR (h, w, 3), with opacity (h, w, 4), or planes (h * 3 / 2, w)."""

    def read(self, frame: int, /) -> U8: ...


def compose_frames(
    backgrounds: Iterator[U8], batches: Iterator[U8], blends: Iterable[tuple[Blend, ...]]
) -> Generator[U8]:
    """Yield each background with its faces blended in.

    A background without blends stays as it is and takes no face.

    backgrounds   frames, uint8, in the form that the blends take
    batches       batches of faces, (n, 256, 256, 3) uint8 BGR

    Backgrounds, batches and the blending each run in a thread, a few items ahead. Their errors are
    raised here, and closing this generator ends them all (see `prefetch`). Raises ValueError where
    the numbers of backgrounds, faces and blends don't agree.
    """
    return prefetch(
        compose_serially(prefetch(backgrounds, FRAMES_AHEAD), prefetch(batches, BATCHES_AHEAD), blends),
        FRAMES_AHEAD,
    )


def compose_serially(
    backgrounds: Iterator[U8], batches: Iterator[U8], blends: Iterable[tuple[Blend, ...]]
) -> Iterator[U8]:
    """Yield the frames of `compose_frames`, all in the caller's thread."""
    faces: Iterator[U8 | None] = chain.from_iterable(batches)
    with closing_all(backgrounds, batches):
        for frame, blends_of_frame in zip(backgrounds, blends, strict=True):
            for blend in blends_of_frame:
                face = next(faces, None)
                if face is None:
                    raise ValueError("there are fewer faces than frames that need one")
                blend.apply(frame, face)
            yield frame
        if next(faces, None) is not None:
            raise ValueError("there are more faces than frames that need one")


def read_frames(open_video: Callable[[], AbstractContextManager[FrameReader]], order: Iterable[int]) -> Iterator[U8]:
    """Yield frames of a video by number.

    The video is opened and read in the thread that iterates.
    """
    with open_video() as video:
        for frame in order:
            yield video.read(frame)


class KeptVideo:
    """The video of the last span, open for a next one that goes on in it.

    To begin in the middle of a video, all pictures since the last key picture have to be decoded.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._video: FrameReader | None = None
        self._opened = ExitStack()

    @contextmanager
    def reuse_or_open(
        self, open_video: Callable[[], AbstractContextManager[FrameReader]], key: object, *, is_last: bool
    ) -> Iterator[FrameReader]:
        """Yield the kept video if its key is the same, else open one. It stays open unless it `is_last` or fails."""
        if self._video is None or self._key != key:
            self.close()
            self._video, self._key = self._opened.enter_context(open_video()), key
        is_kept = False
        try:
            yield self._video
            is_kept = not is_last
        finally:
            if not is_kept:
                self.close()

    def close(self) -> None:
        self._video = None
        self._opened.close()


class BlendCache:
    """Blends by number of their source frame, made once while all fit into `max_bytes`."""

    def __init__(self, make_blend: Callable[[int], Blend | None], max_bytes: int = _MAX_BLEND_BYTES) -> None:
        self._make_blend, self._max_bytes, self._bytes = make_blend, max_bytes, 0
        self._blends: OrderedDict[int, Blend | None] = OrderedDict()

    def get(self, source: int) -> Blend | None:
        """Return the blend of a source frame. The least recently used ones are dropped for it."""
        if source not in self._blends:
            self._blends[source] = made = self._make_blend(source)
            self._bytes += made.nbytes if made else 0
        self._blends.move_to_end(source)
        while self._bytes > self._max_bytes and len(self._blends) > 1:
            _, old = self._blends.popitem(last=False)
            self._bytes -= old.nbytes if old else 0
        return self._blends[source]
