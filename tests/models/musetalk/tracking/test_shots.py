"""Cuts found in the pictures of a video."""

from __future__ import annotations

import cv2
import numpy as np

from models.musetalk.tracking.shots import CutDetector
from tests.models.musetalk.toy_nets import disc_frame


def cuts_in(frames: list[np.ndarray]) -> list[int]:
    finder = CutDetector()
    return [number for number, frame in enumerate(frames) if finder.add_frame(frame)]


def panned(offset: int) -> np.ndarray:
    wide = disc_frame(2400, 240, (700, 120, 90), (1400, 100, 120))
    return np.ascontiguousarray(wide[:, offset : offset + 320])


def test_cuts_are_found_in_the_picture() -> None:
    """From one picture to another, and to and from a picture without any pattern."""
    one, other = disc_frame(320, 240, (160, 120, 110)), disc_frame(320, 240, (150, 110, 110), seed=8)
    assert cuts_in([one] * 5 + [other] * 5 + [one] * 2) == [5, 10]
    assert cuts_in([one] * 3 + [np.zeros_like(one)] * 2 + [one] * 3) == [3, 5]


def test_motion_and_light_are_no_cuts() -> None:
    """A head that moves, a fast pan, light that jumps, noise, and a fade are not cuts."""
    still = disc_frame(320, 240, (160, 120, 110))
    assert cuts_in([disc_frame(320, 240, (100 + 12 * n, 120, 110)) for n in range(10)]) == []
    assert cuts_in([panned(40 * n) for n in range(40)]) == []
    assert cuts_in([still, cv2.convertScaleAbs(still, alpha=1.2, beta=35), still, still]) == []
    assert cuts_in([cv2.convertScaleAbs(still, alpha=1 - n / 25) for n in range(25)]) == []
    random = np.random.default_rng(0)
    assert cuts_in([cv2.add(still, random.integers(0, 40, still.shape).astype(np.uint8)) for _ in range(10)]) == []
