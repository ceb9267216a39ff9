"""Which frame of the avatar each frame shows, and how strongly its mouth is inpainted."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np

from models.arrays import F32, F64, I64, Bool

Cycle = Literal["pingpong", "loop", "hold"]

FADE_S = 0.12
"""Seconds in which an inpainted mouth fades in beside frames without a face."""


def pick_source_frames(frame_count: int, avatar_frames: int, cycle: Cycle) -> I64:
    """Return the number of the avatar's frame that each frame shows, (frame_count,) int64.

    cycle   "pingpong": forward and back, both ends shown twice, as MuseTalk does; "loop": from the
            start again; "hold": the last frame for the rest

    >>> pick_source_frames(7, 3, "pingpong").tolist()
    [0, 1, 2, 2, 1, 0, 0]
    """
    frames = np.arange(frame_count)
    if cycle == "hold":
        return np.minimum(frames, avatar_frames - 1)
    rounds, within = np.divmod(frames, avatar_frames)
    return np.where((cycle == "pingpong") & (rounds % 2 == 1), avatar_frames - 1 - within, within)


def fade_weights(present: Bool, rate: Fraction, fade_s: float = FADE_S) -> F32:
    """Return weights of 0 to 1 that fade beside frames which are not present, (n,) float32.

    A weight is 0 where `present` (n,) is False, and rises to 1 within `fade_s` beside it.

    `rate` is in frames a second. The first and the last frame of the video don't fade.

    >>> fade_weights(np.array([1, 1, 0, 1, 1], bool), Fraction(25), 0.04).tolist()
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """
    steps = max(1, round(fade_s * rate)) + 1
    return np.minimum(count_frames_to_nearest(~present) / steps, 1).astype(np.float32)


def fade_edges(voiced: range, frame_count: int, rate: Fraction) -> F32:
    """Return weights of frames that follow a voice, (len(voiced),), which fade beside those that don't.

    The first and the last frame of the video don't fade.
    """
    present = np.zeros(frame_count, np.bool_)
    present[voiced.start : voiced.stop] = True
    return fade_weights(present, rate)[voiced.start : voiced.stop]


def count_frames_to_nearest(marked: Bool) -> F64:
    """Return each frame's distance to the nearest marked one, (n,); infinite without one."""
    frames = np.arange(len(marked))
    before = np.maximum.accumulate(np.where(marked, frames, -np.inf))
    after = np.minimum.accumulate(np.where(marked, frames, np.inf)[::-1])[::-1]
    return np.asarray(np.minimum(frames - before, after - frames), np.float64)
