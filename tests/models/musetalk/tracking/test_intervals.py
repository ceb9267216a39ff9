"""Runs of frames."""

from __future__ import annotations

import numpy as np

from models.musetalk.tracking.intervals import find_runs


def test_runs_of_set_flags() -> None:
    """From the first frame of each run to the one after its last, at the ends too."""
    assert list(find_runs(np.array([0, 1, 1, 0, 1], bool))) == [(1, 3), (4, 5)]
    assert list(find_runs(np.zeros(3, bool))) == []
    assert list(find_runs(np.ones(3, bool))) == [(0, 3)]
    assert list(find_runs(np.zeros(0, bool))) == []
