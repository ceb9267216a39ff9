"""What a face does besides speaking: blinks and small movements of the head. Decided by the audio, never by chance."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]

_BLINK_S, _LIDS = (0.0, 0.07, 0.11, 0.26), (0.0, 1.0, 1.0, 0.0)
"""A blink: seconds since it began, and how far the lids are down then; they fall faster than they rise."""


def blinks(frames: int, fps: Fraction, seed: int) -> Floats:
    """(frames,) float32, 0 open .. 1 shut: a blink every two to five seconds, now and then two at once."""
    rng = np.random.default_rng([seed, 1])
    middle_s = (np.arange(frames) + 0.5) / float(fps)
    shut = np.zeros(frames, np.float32)
    begin = rng.uniform(1.0, 2.4)
    while begin < frames / float(fps) - 0.4:
        shut = np.maximum(shut, np.interp(middle_s - begin, _BLINK_S, _LIDS))
        begin += rng.uniform(0.35, 0.5) if rng.random() < 0.12 else rng.uniform(2.0, 5.0)
    return shut.astype(np.float32)


def sway(opening: Floats, fps: Fraction, seed: int) -> Floats:
    """(frames, 5) float32: roll in degrees, x and y in face units, turn and nod as parallax in face units.

    Slow and never quite repeating; the head sinks a little where speech is loud.
    """
    rng = np.random.default_rng([seed, 2])
    seconds = (np.arange(len(opening)) / float(fps))[:, None]
    drift = np.zeros((len(opening), 5))
    for hertz, share in ((0.11, 0.5), (0.23, 0.35), (0.47, 0.15)):
        rate, phase = hertz * rng.uniform(0.85, 1.15, 5), rng.uniform(0, 2 * np.pi, 5)
        drift += share * np.sin(2 * np.pi * (rate * seconds + phase))
    still = np.minimum(1, seconds / 0.8)  # a result starts as the photo stands, so that loops and cuts join well
    moved = drift * np.array([1.1, 2.2, 1.4, 2.6, 1.8]) * still
    moved[:, 4] += 2.4 * _stress(opening, fps)
    moved[:, 2] += 0.8 * _stress(opening, fps)
    return moved.astype(np.float32)


def _stress(opening: Floats, fps: Fraction) -> npt.NDArray[np.float64]:
    """Speech as the head follows it: the opening over half a second."""
    width = max(3, round(float(fps) / 2)) | 1
    kernel = np.hanning(width + 2)[1:-1]
    return np.convolve(np.pad(opening, width // 2, "edge"), kernel / kernel.sum(), "valid")
