"""The movement of the whole head."""

from __future__ import annotations

import numpy as np
import pytest

from models.preview.head import HeadField
from tests.models.preview.portraits import find_face, portrait


def test_the_head_moves_and_the_background_stands() -> None:
    """The eyes of a turned head move as far as asked; the corners of the picture don't move."""
    image = portrait()
    head = HeadField(find_face(image), (640, 640))
    x0, y0, x1, y1 = head.rect
    across, down = head.compute_maps(np.array([0, 10, 0, 0, 0], np.float32))
    still_x, still_y = np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))
    moved = np.hypot(across - still_x, down - still_y)
    (ax, ay), (bx, by) = find_face(image).eyes
    eyes = moved[round((ay + by) / 2) - y0, round((ax + bx) / 2) - x0]
    assert eyes == pytest.approx(0.1 * find_face(image).eye_distance, rel=0.05)
    assert moved[:, 0].max() < 0.5
    assert moved[:, -1].max() < 0.5
