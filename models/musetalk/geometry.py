"""Boxes in the pixels of a frame."""

from __future__ import annotations

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels of the frame, ends exclusive; may reach beyond the frame."""
Size = tuple[int, int]
"""Width and height of a frame in pixels."""


def shift_box(box: Box, x: int, y: int) -> Box:
    """Return the box moved by `x` pixels to the right and `y` down."""
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def intersect(one: Box, other: Box) -> Box:
    """Return what both boxes cover; where they don't meet, an empty box within `other`."""
    left, top = (min(max(one[axis], other[axis]), other[axis + 2]) for axis in (0, 1))
    right, bottom = max(left, min(one[2], other[2])), max(top, min(one[3], other[3]))
    return left, top, right, bottom
