"""Where a video cuts from one shot to another, told from small grey pictures of its frames as they come."""

from __future__ import annotations

from collections import deque
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.float32]

SIDE = 32
_MEMORY_FRAMES = 8
_CHANGED_LEVELS = 10.0
_SUDDEN = 3.0
_ALIKE = 0.75


class CutDetector:
    """Fed frame after frame, says of each whether a new shot begins with it. Keeps 4 KiB, whatever the video.

    A cut changes the grey levels much (10 of 256 on average), suddenly (three times as much as the eight frames
    before it at most did) and in their pattern (correlation under 0.75): light that comes and goes, pans, zooms,
    and heads that move don't do all three.
    """

    def __init__(self) -> None:
        self._before: Grey | None = None
        self._changes: deque[float] = deque(maxlen=_MEMORY_FRAMES)

    def add_frame(self, frame: npt.NDArray[np.uint8]) -> bool:
        """Whether this BGR frame begins a shot; the first one of a video doesn't."""
        small = make_thumbnail(frame)
        before, self._before = self._before, small
        if before is None:
            return False
        change = float(np.abs(small - before).mean())
        usual = max(self._changes, default=0.0)
        cut = change > max(_CHANGED_LEVELS, _SUDDEN * usual) and correlate(before, small) < _ALIKE
        if cut:
            self._changes.clear()
        else:
            self._changes.append(change)
        return cut


def make_thumbnail(frame: npt.NDArray[np.uint8]) -> Grey:
    """(32, 32) grey levels of a BGR frame, each the mean of its part."""
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.float32)


def correlate(a: Grey, b: Grey) -> float:
    """Correlation of two thumbnails, whatever their brightness and contrast; 0 if one of them has no pattern."""
    a, b = a - a.mean(), b - b.mean()
    both: Any = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / both) if both > SIDE * SIDE else 0.0
