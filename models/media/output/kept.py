"""Pictures that are kept, small, while a finished video is read to its end."""

from __future__ import annotations

from collections.abc import Iterable

import av
import numpy as np

from models.arrays import U8


class KeptPictures:
    """`pictures` are the frames with some numbers, (height, width, 3) uint8 BGR, once the video was read."""

    def __init__(self, numbers: Iterable[int], size: tuple[int, int]) -> None:
        """`size` is width and height of the pictures, both even."""
        self.pictures: dict[int, U8] = {}
        self._numbers, self._size = frozenset(numbers), size

    def look(self, number: int, frame: av.VideoFrame) -> None:
        """Keep the frame if it is one of them."""
        if number in self._numbers:
            width, height = self._size
            small = frame.to_ndarray(format="bgr24", width=width, height=height)
            self.pictures[number] = np.asarray(small, np.uint8)
