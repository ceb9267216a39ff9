"""The contact sheet: nine frames in order, their times, and the figures."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from models.quality.sheet import choose_frames, choose_tile_size, draw_sheet, format_figures


def test_nine_frames_spread_over_the_video() -> None:
    """Of few frames all; none twice, none beyond the end."""
    assert choose_frames(1) == [0]
    assert choose_frames(5) == [0, 1, 2, 3, 4]
    assert len(choose_frames(9)) == 9
    many = choose_frames(7500)
    assert len(many) == 9
    assert (many[0] < 500, many[-1] > 7000) == (True, True)


def test_a_sheet_shows_the_frames_in_order() -> None:
    """Left to right and down, each with its time below; the figures are at the foot."""
    size = choose_tile_size(1280, 720)
    assert size == (320, 180)
    assert choose_tile_size(64, 48) == (64, 48)
    pictures = {n: np.full((180, 320, 3), 10 + 20 * n, np.uint8) for n in range(9)}
    sheet = draw_sheet(pictures, Fraction(25), {"sharpness": 0.9, "lag_ms": None})
    tops, lefts = (4, 210, 416), (4, 328, 652)
    shown = [int(sheet[top + 90, left + 160, 0]) for top in tops for left in lefts]
    assert shown == [10 + 20 * n for n in range(9)]
    assert sheet[tops[0] + 180 : tops[0] + 202].max() > 200
    assert draw_sheet(pictures, Fraction(25), None).shape[0] == sheet.shape[0] - 22
    assert format_figures({"sharpness": 0.9, "lag_ms": None, "seam": 1.5}) == ["sharpness 0.9   seam 1.5"]
