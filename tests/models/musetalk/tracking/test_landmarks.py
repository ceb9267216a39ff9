"""Landmarks that are not on the detected face, and the boxes that landmarks make."""

from __future__ import annotations

import numpy as np
import pytest

from models.musetalk.tracking.boxes import plan_boxes
from models.musetalk.tracking.landmarks import DEFAULT_LAYOUT, measure_boxes
from tests.models.musetalk.tracking.heads import SIZE, detected_at, face_at, still, video


@pytest.mark.parametrize("smooth", [True, False])
def test_landmarks_beside_the_face_are_not_believed(smooth: bool) -> None:
    """Where the pose net points elsewhere, the face's usual landmarks are laid onto its detected box."""
    points, detected = video(still(20))
    points[7] = face_at(100, 650)
    points[12] = 5.0
    track = plan_boxes(points, detected, SIZE, smooth=smooth)
    assert track.seen.all()
    assert np.abs(track.boxes - track.boxes[0]).max() <= 1


def test_without_believable_landmarks_the_detector_decides() -> None:
    """Then the box is the detected one."""
    detected = np.stack([detected_at(640, 360)] * 3)
    track = plan_boxes(np.full((3, 68, 2), 5.0), detected, SIZE)
    assert np.abs(track.boxes - detected).max() <= 1
    assert measure_boxes(DEFAULT_LAYOUT[None], 0).tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_shift_and_margin() -> None:
    """A shift moves the top by twice as much and nothing else; a margin moves the bottom."""
    points, detected = video(still(10))
    plain, moved = plan_boxes(points, detected, SIZE), plan_boxes(points, detected, SIZE, shift=5, margin=10)
    assert (moved.boxes - plain.boxes).tolist() == [[0, 10, 0, 10]] * 10
    assert plain.shift_range == (-10, 10)
