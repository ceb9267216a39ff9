"""Boxes in the pixels of a frame."""

from __future__ import annotations

from models.musetalk.geometry import intersect, shift_box


def test_a_box_is_moved() -> None:
    """Both corners move, also beyond the frame."""
    assert shift_box((1, 2, 3, 5), -4, 10) == (-3, 12, -1, 15)


def test_boxes_intersect() -> None:
    """Boxes that meet share a box; those that don't give an empty one within the second."""
    assert intersect((0, 0, 10, 10), (5, -5, 20, 8)) == (5, 0, 10, 8)
    assert intersect((0, 0, 4, 4), (6, 1, 9, 3)) == (6, 1, 6, 3)
    assert intersect((20, 0, 30, 4), (6, 1, 9, 3)) == (9, 1, 9, 3)
