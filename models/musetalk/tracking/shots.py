"""Where a video cuts from one shot to another, from small grey pictures of its frames."""

from __future__ import annotations

from collections import deque
from typing import Any

import cv2
import numpy as np

from models.arrays import F32, U8

SIDE = 32
_MEMORY_FRAMES = 8
_CHANGED_LEVELS = 10.0
_SUDDEN = 3.0
_ALIKE = 0.75


class CutDetector:
    """Finds the frames of a video with which shots begin. Keeps 4 KiB, however long the video is.

    A cut changes the grey levels much (10 of 256 on average), suddenly (three times as much as the
    most of the eight frames before it) and in their pattern (correlation under 0.75). Light that
    changes, pans, zooms and heads that move don't do all three.
    """

    def __init__(self) -> None:
        self._last: F32 | None = None
        self._changes: deque[float] = deque(maxlen=_MEMORY_FRAMES)

    def add_frame(self, frame: U8) -> bool:
        """Take the next frame, (h, w, 3) BGR; return True if a shot begins with it.

        The first frame begins none.
        """
        small = make_thumbnail(frame)
        last, self._last = self._last, small
        if last is None:
            return False
        change = float(np.abs(small - last).mean())
        usual = max(self._changes, default=0.0)
        cut = change > max(_CHANGED_LEVELS, _SUDDEN * usual) and correlate(last, small) < _ALIKE
        if cut:
            self._changes.clear()
        else:
            self._changes.append(change)
        return cut


def make_thumbnail(frame: U8) -> F32:
    """Return (32, 32) float32 grey levels of a BGR frame, each the mean of its part."""
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.float32)


def correlate(a: F32, b: F32) -> float:
    """Return the correlation of two thumbnails, -1 to 1; 0 if one of them has no pattern."""
    a, b = a - a.mean(), b - b.mean()
    both: Any = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / both) if both > SIDE * SIDE else 0.0
