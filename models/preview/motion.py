"""Blinks and small movements of the head. The same audio always gives the same movements."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from models.arrays import F64, Floats

_BLINK_S, _LIDS = (0.0, 0.07, 0.11, 0.26), (0.0, 1.0, 1.0, 0.0)
"""A blink: seconds since its start, and how far the lids are shut then."""


FADE_S = 0.12
"""Seconds in which the movement begins and ends beside frames that are left as they are."""


def make_strength(voiced: range, frames: int, fps: Fraction) -> Floats:
    """Return (len(voiced),) float32: 1, with fades towards frames of the result, 0 to `frames`, beside `voiced`.

    >>> make_strength(range(2, 6), 6, Fraction(25, 1)).round(2).tolist()
    [0.25, 0.5, 0.75, 1.0]
    """
    steps, at = max(1, round(FADE_S * fps)) + 1, np.arange(1, len(voiced) + 1)
    rising = at / steps if voiced.start > 0 else np.ones(len(voiced))
    falling = at[::-1] / steps if voiced.stop < frames else np.ones(len(voiced))
    return np.minimum(np.minimum(rising, falling), 1).astype(np.float32)


def make_blinks(frames: int, fps: Fraction, seed: int) -> Floats:
    """Return (frames,) float32, 0 open .. 1 shut: a blink every two to five seconds."""
    rng = np.random.default_rng([seed, 1])
    middle_s = (np.arange(frames) + 0.5) / float(fps)
    shut = np.zeros(frames, np.float32)
    begin = rng.uniform(1.0, 2.4)
    while begin < frames / float(fps) - 0.4:
        shut = np.maximum(shut, np.interp(middle_s - begin, _BLINK_S, _LIDS))
        begin += rng.uniform(0.35, 0.5) if rng.random() < 0.12 else rng.uniform(2.0, 5.0)
    return shut.astype(np.float32)


def make_sway(opening: Floats, fps: Fraction, seed: int) -> Floats:
    """Return (frames, 5) float32: roll in degrees, x and y in face units, turn and nod as parallax
    in face units.

    The movement is slow and does not repeat; the head sinks a little where speech is loud.
    """
    rng = np.random.default_rng([seed, 2])
    seconds = (np.arange(len(opening)) / float(fps))[:, None]
    drift = np.zeros((len(opening), 5))
    for hertz, share in ((0.11, 0.5), (0.23, 0.35), (0.47, 0.15)):
        rate, phase = hertz * rng.uniform(0.85, 1.15, 5), rng.uniform(0, 2 * np.pi, 5)
        drift += share * np.sin(2 * np.pi * (rate * seconds + phase))
    still = np.minimum(1, seconds / 0.8)  # a result starts at the pose of the photo, so that loops and cuts match
    moved = drift * np.array([1.1, 2.2, 1.4, 2.6, 1.8]) * still
    moved[:, 4] += 2.4 * _measure_stress(opening, fps)
    moved[:, 2] += 0.8 * _measure_stress(opening, fps)
    return moved.astype(np.float32)


def _measure_stress(opening: Floats, fps: Fraction) -> F64:
    """Return the opening averaged over half a second, which the head follows."""
    width = max(3, round(float(fps) / 2)) | 1
    kernel = np.hanning(width + 2)[1:-1]
    return np.convolve(np.pad(opening, width // 2, "edge"), kernel / kernel.sum(), "valid")
