"""The label of previews."""

from __future__ import annotations

import numpy as np
import pytest

from models.preview.label import Label


@pytest.mark.parametrize("height", [180, 360, 720, 2160])
def test_the_label_is_legible_and_stays_in_its_corner(height: int) -> None:
    """The label has bright letters on a darkened corner, and takes less than a sixth of the height."""
    width = height * 16 // 9
    frame = np.full((height, width, 3), 200, np.uint8)
    Label(width, height, np.array([[width / 2, height / 4, height / 2, height / 2]])).stamp(frame)
    changed = np.argwhere((frame != 200).any(2))
    assert changed.min() == 0
    assert changed[:, 0].max() < height / 6
    assert changed[:, 1].max() < width * 0.75
    assert frame[: height // 6].max() >= 240


def test_the_label_makes_room_for_a_face() -> None:
    """Where a face is in the top left corner, the label is in the bottom left one."""
    frame = np.full((360, 360, 3), 200, np.uint8)
    Label(360, 360, np.array([[200.0, 90, 100, 100], [20, 5, 200, 200]])).stamp(frame)
    assert (frame[:240] == 200).all()
    assert (frame[340:, :100] != 200).any()
