"""The pictures of the tray."""

from __future__ import annotations

import pytest

from agent.desktop.icon import COLOURS, SIZES, draw_icons


def count_colour(kind: str, percent: float) -> int:
    """Count the pixels of the largest picture that have the kind's own colour."""
    _, _, pixels = draw_icons(kind, percent)[-1]
    wanted = bytes((255, *COLOURS[kind]))
    return sum(pixels[at : at + 4] == wanted for at in range(0, len(pixels), 4))


@pytest.mark.parametrize("kind", COLOURS)
def test_each_kind_has_a_picture_in_each_size(kind: str) -> None:
    """Corners are transparent, the middle isn't, and there is a face."""
    for (width, height, pixels), size in zip(draw_icons(kind, 50), SIZES, strict=True):
        assert (width, height, len(pixels)) == (size, size, 4 * size * size)
        assert pixels[0] == 0
        assert pixels[4 * (size * size // 2 + size // 2)] == 255
        assert bytes((255, 255, 255, 255)) in pixels


def test_kinds_differ_and_the_ring_grows() -> None:
    """Work, a pause, trouble and absence look different; more progress is more ring."""
    assert len({draw_icons(kind, 0)[0][2] for kind in COLOURS}) == len(COLOURS)
    rings = [count_colour("working", percent) for percent in (0, 25, 50, 75, 100)]
    assert rings == sorted(set(rings))
    assert count_colour("working", -5) == rings[0]
    assert count_colour("working", 500) == rings[-1]
