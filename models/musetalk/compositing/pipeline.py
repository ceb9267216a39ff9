"""The frames of a span: decoding, painting, pasting, and the encoding of what they yield, overlap in threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain

import numpy as np
import numpy.typing as npt

from models.media import Bgr, VideoFrames
from models.media.prefetch import closing_all, prefetch
from models.musetalk.compositing.composite import BgrBlend, YuvBlend

Picture = npt.NDArray[np.uint8]
"""A frame as BGR, (h, w, 3), or as planes, (h * 3 / 2, w)."""
Faces = npt.NDArray[np.uint8]
"""A batch of painted faces, (n, 256, 256, 3) BGR."""
Blend = BgrBlend | YuvBlend

FRAMES_AHEAD = 4
BATCHES_AHEAD = 2
_MAX_BLEND_BYTES = 128 << 20


def compose_frames(
    backgrounds: Iterator[Picture], batches: Iterator[Faces], pastes: Iterable[Blend | None]
) -> Generator[Picture]:
    """Each background with its face pasted; a background whose paste is None stays as it is and takes no face.

    `backgrounds`, `batches` and the pasting each run in a thread; a few frames and batches wait between them. Errors of
    any of them are raised here, and closing this ends them all (see `prefetch`). Raises ValueError where the numbers of
    backgrounds, faces and pastes don't agree.
    """
    return prefetch(
        compose_serially(prefetch(backgrounds, FRAMES_AHEAD), prefetch(batches, BATCHES_AHEAD), pastes),
        FRAMES_AHEAD,
    )


def compose_serially(
    backgrounds: Iterator[Picture], batches: Iterator[Faces], pastes: Iterable[Blend | None]
) -> Iterator[Picture]:
    """The same one after another in one thread: the plain way."""
    faces: Iterator[Bgr | None] = chain.from_iterable(batches)
    with closing_all(backgrounds, batches):
        for frame, paste in zip(backgrounds, pastes, strict=True):
            if paste is not None:
                face = next(faces, None)
                if face is None:
                    raise ValueError("there are fewer faces than frames that want one")
                paste.apply(frame, face)
            yield frame
        if next(faces, None) is not None:
            raise ValueError("there are more faces than frames that want one")


def read_frames(open_video: Callable[[], VideoFrames], order: Iterable[int]) -> Iterator[Picture]:
    """Frames of a video by number; it is opened and read by the thread that runs this."""
    with open_video() as video:
        for index in order:
            yield video.read(index)


class BlendCache:
    """Pastes by number of their source frame, made once while they fit into memory."""

    def __init__(self, make: Callable[[int], Blend | None], most_bytes: int = _MAX_BLEND_BYTES) -> None:
        self._make, self._most_bytes, self._bytes = make, most_bytes, 0
        self._kept: OrderedDict[int, Blend | None] = OrderedDict()

    def get(self, source: int) -> Blend | None:
        if source not in self._kept:
            self._kept[source] = made = self._make(source)
            self._bytes += made.nbytes if made else 0
        self._kept.move_to_end(source)
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._bytes -= old.nbytes if old else 0
        return self._kept[source]
