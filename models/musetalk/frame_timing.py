"""Which frame of the avatar is shown when, and how strongly its mouth is painted."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Cycle = Literal["pingpong", "loop", "hold"]

FADE_S = 0.12
"""How long a painted mouth takes to appear beside frames that show none."""


def pick_source_frames(frames: int, length: int, how: Cycle) -> Ints:
    """(frames,): the avatar's frame at each frame of the result. Forward and back, both ends shown twice, or else.

    >>> source_frames(7, 3, "pingpong").tolist()
    [0, 1, 2, 2, 1, 0, 0]
    """
    number = np.arange(frames)
    if how == "hold":
        return np.minimum(number, length - 1)
    around, within = np.divmod(number, length)
    return np.where((how == "pingpong") & (around % 2 == 1), length - 1 - within, within)


def fade_weights(present: npt.NDArray[np.bool_], rate: Fraction, fade_s: float = FADE_S) -> Floats:
    """(n,) 0..1: 0 where nothing is present, rising within `fade_s` beside it, else 1. The ends don't fade.

    >>> faded(np.array([1, 1, 0, 1, 1], bool), Fraction(25), 0.04).tolist()
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """
    steps = max(1, round(fade_s * rate)) + 1
    return np.minimum(count_frames_to_nearest(~present) / steps, 1).astype(np.float32)


def count_frames_to_nearest(marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """(n,): frames to the nearest marked one; infinite if there is none."""
    number = np.arange(len(marked))
    before = np.maximum.accumulate(np.where(marked, number, -np.inf))
    after = np.minimum.accumulate(np.where(marked, number, np.inf)[::-1])[::-1]
    return np.asarray(np.minimum(number - before, after - number), np.float64)
