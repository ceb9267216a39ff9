"""Make whole pictures of interlaced ones, by the flags of each frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import av
from av.filter import Graph

Placed = tuple[int, av.VideoFrame]
"""Position in a timeline, and the picture."""
_FILTER = "mode=send_frame:parity=auto:deint=interlaced"


def is_interlaced(frame: av.VideoFrame) -> bool:
    """Whether a frame holds two fields; a PNG that is stored in passes doesn't."""
    kind = frame.format
    return frame.interlaced_frame and not (kind.is_rgb or kind.has_palette)


def deinterlace(frames: Iterator[Placed]) -> Iterator[Placed]:
    """Yield frames with both fields at one time; those that are progressive are passed on.

    A frame depends on its neighbours, so the first one of a walk is left out where it is
    interlaced and not the first of the video.
    """
    weaver, before = None, None
    for position, frame in frames:
        if weaver is not None and not weaver.fits(frame):
            yield from weaver.finish()
            weaver, before = None, None
        if weaver is None and not is_interlaced(frame):
            before = frame
            yield position, frame
            continue
        if weaver is None:
            weaver = _Weaver(frame)
            if before is not None:
                weaver.push(None, before)
        alone = before is None and not weaver.pushed and position > 0
        yield from weaver.push(None if alone else position, frame)
    if weaver is not None:
        yield from weaver.finish()


class _Weaver:
    """FFmpeg's bwdif: returns each frame when it has seen the next one."""

    def __init__(self, like: av.VideoFrame) -> None:
        self._kind, self.pushed = (like.width, like.height, like.format.name), False
        self._positions: deque[int | None] = deque()
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=like.width, height=like.height, format=like.format, time_base=like.time_base
        )
        weave, sink = self._graph.add("bwdif", _FILTER), self._graph.add("buffersink")
        source.link_to(weave)
        weave.link_to(sink)
        self._graph.configure()

    def fits(self, frame: av.VideoFrame) -> bool:
        """Whether the frame has the size and format of the others."""
        return (frame.width, frame.height, frame.format.name) == self._kind

    def push(self, position: int | None, frame: av.VideoFrame) -> list[Placed]:
        """Return what is whole now; frames without a position only help their neighbours."""
        self.pushed = True
        self._positions.append(position)
        self._graph.push(frame)
        return self._pull()

    def finish(self) -> list[Placed]:
        """Return the last frame."""
        self._graph.push(None)
        return self._pull()

    def _pull(self) -> list[Placed]:
        whole: list[Placed] = []
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return whole
            position = self._positions.popleft()
            if position is not None and isinstance(frame, av.VideoFrame):
                whole.append((position, frame))
