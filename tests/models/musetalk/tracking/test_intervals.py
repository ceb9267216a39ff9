"""Runs of frames, and the jumps of a face between them."""

from __future__ import annotations

import numpy as np

from models.musetalk.tracking.boxes import plan_boxes
from models.musetalk.tracking.intervals import find_runs
from tests.models.musetalk.tracking.heads import SIZE, still, video


def test_runs_of_set_flags() -> None:
    """From the first frame of each run to the one after its last, at the ends too."""
    assert list(find_runs(np.array([0, 1, 1, 0, 1], bool))) == [(1, 3), (4, 5)]
    assert list(find_runs(np.zeros(3, bool))) == []
    assert list(find_runs(np.ones(3, bool))) == [(0, 3)]
    assert list(find_runs(np.zeros(0, bool))) == []


def test_a_leaping_head_counts_as_a_cut() -> None:
    """A jump cut that the picture hardly shows is found in the face's own path; a single wrong find is no jump."""
    path = np.concatenate([still(30), still(30, 720, 360)])
    track = plan_boxes(*video(path, grain=2.8), SIZE)
    assert track.cuts == (30,)
    path = still(60)
    path[20] += 150
    track = plan_boxes(*video(path), SIZE)
    assert track.cuts == ()
    assert len(np.unique(track.boxes, axis=0)) == 1


def test_a_running_head_is_no_cut() -> None:
    """Fast but even motion is followed, not cut."""
    path = still(30, 200, 360) + np.arange(30)[:, None] * [30, 0]
    track = plan_boxes(*video(path, 100.0), SIZE)
    assert track.cuts == ()
    assert np.abs(np.diff(track.boxes[:, 0]) - 30).max() <= 1
