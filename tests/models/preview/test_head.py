"""The movement of the whole head."""

from __future__ import annotations

import numpy as np
import pytest

from models.preview.face import make_face_in_box
from models.preview.head import HeadField, make_lids
from tests.models.preview.portraits import find_face, portrait


def test_the_head_moves_and_the_background_stands() -> None:
    """The eyes of a turned head move as far as asked; the corners of the picture don't move."""
    image = portrait()
    head = HeadField(find_face(image), (640, 640))
    x0, y0, x1, y1 = head.rect
    nodes = head.compute_nodes(np.array([0, 10, 0, 0, 0], np.float32), np.eye(2, 3))
    sources = head.find_sources(nodes, head.rect)
    still_x, still_y = np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))
    moved = np.hypot(sources[..., 0] - still_x, sources[..., 1] - still_y)
    (ax, ay), (bx, by) = find_face(image).eyes
    eyes = moved[round((ay + by) / 2) - y0, round((ax + bx) / 2) - x0]
    assert eyes == pytest.approx(0.1 * find_face(image).eye_distance, rel=0.05)
    assert moved[:, 0].max() < 0.5
    assert moved[:, -1].max() < 0.5


def test_a_part_of_the_head_comes_from_where_the_whole_does() -> None:
    """The sources of any rectangle in the head are those of the whole head there."""
    image = portrait()
    head = HeadField(find_face(image), (640, 640))
    nodes = head.compute_nodes(np.array([1, 3, 2, 4, 2], np.float32), np.eye(2, 3))
    whole, (x0, y0, x1, y1) = head.find_sources(nodes, head.rect), head.rect
    for left, top, right, bottom in (
        (x0, y0, x1, y0 + 64),
        (x0 + 13, y0 + 37, x0 + 90, y0 + 38),
        (x1 - 9, y1 - 5, x1, y1),
    ):
        part = head.find_sources(nodes, (left, top, right, bottom))
        assert (part == whole[top - y0 : bottom - y0, left - x0 : right - x0]).all()


def test_eyes_that_are_guessed_do_not_blink() -> None:
    """Lids are drawn over eyes that are seen, and none where they usually are in a box that the job gives."""
    face = find_face(portrait())
    assert len(make_lids(portrait(), face)) == 2
    assert make_lids(portrait(), make_face_in_box(face.box)) == ()
