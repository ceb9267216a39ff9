"""Paths smoothed without delay."""

from __future__ import annotations

import numpy as np
import pytest

from models.musetalk.tracking.smoothing import round_steadily, smooth_paths


def test_smoothing_is_the_same_backwards() -> None:
    """A path and its mirror image in time come out as mirror images."""
    path = np.random.default_rng(1).normal(0, 5, (80, 3)).cumsum(0)
    known = np.ones(80, bool)
    known[30:33] = False
    there = smooth_paths(path, known, 2.8, 25)
    back = smooth_paths(path[::-1], known[::-1], 2.8, 25)[::-1]
    assert np.abs(there - back).max() < 1e-6


@pytest.mark.parametrize("rate", [12.0, 25.0, 60.0])
def test_even_motion_comes_out_as_it_went_in(rate: float) -> None:
    """No end of a shot and no rate bends a straight path."""
    path = np.arange(70.0)[:, None] * [1.5, -4.0] + 100
    assert np.abs(smooth_paths(path, np.ones(70, bool), 2.8, rate) - path).max() < 1e-3


def test_whole_numbers_are_held() -> None:
    """A value on the border of two pixels doesn't flicker; a real change comes through."""
    assert round_steadily(np.array([4.4, 4.6, 4.4, 4.6, 5.2, 4.6, 3.9])).tolist() == [4, 4, 4, 4, 5, 5, 4]
