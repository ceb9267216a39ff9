"""Blinks and sway."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from models.preview.motion import make_blinks, make_sway

FPS = Fraction(25)


def test_blinks_and_sway_are_seeded_and_small() -> None:
    """Blinks and sway depend on the seed; a minute has 10 to 35 blinks, and the head moves little."""
    shut = make_blinks(1500, FPS, 3)
    assert np.array_equal(shut, make_blinks(1500, FPS, 3))
    assert not np.array_equal(shut, make_blinks(1500, FPS, 4))
    assert 10 <= (np.diff((shut > 0.5).astype(int)) == 1).sum() <= 35
    poses = make_sway(np.zeros(1500, np.float32), FPS, 3)
    assert np.array_equal(poses, make_sway(np.zeros(1500, np.float32), FPS, 3))
    assert np.abs(poses).max() < 4, "degrees and hundredths of the eye distance"
    assert np.abs(np.diff(poses, axis=0)).max() < 0.4
    assert (poses[0] == 0).all(), "a result begins as the photo stands"
