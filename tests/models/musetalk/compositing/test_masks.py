"""Masks of inpainted faces, against the reference's own; tests/data has its frames as differences (xor)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.musetalk.compositing.composite import BgrBlend, fit_face, trim_mask
from models.musetalk.compositing.masks import (
    Mode,
    blur_width,
    crop_square,
    make_blend_mask,
    make_jaw_kernel,
    make_parsing_mask,
    square_around,
)
from models.musetalk.geometry import Box, intersect

GOLDEN = Path(__file__).parents[3] / "data" / "musetalk"
CASES = sorted(path.name for path in GOLDEN.glob("06_blend_*.npz"))
MODES: list[Mode] = ["raw", "neck", "jaw"]
PARSED = np.load(GOLDEN / "06_parsing_modes.npz")


def boxes(case: dict[str, np.ndarray]) -> tuple[Box, Box]:
    x1, y1, x2, y2 = (int(edge) for edge in case["box"])
    return (x1, y1, x2, y2), square_around((x1, y1, x2, y2))


@pytest.mark.parametrize("mode", MODES)
def test_parsing_modes(mode: Mode) -> None:
    """Which classes are repainted in each mode."""
    assert np.array_equal(make_parsing_mask(PARSED["class_map"], mode), PARSED[f"mask_{mode}"])


def test_cheek_widths() -> None:
    """The jaw is narrowed outside the given columns, left and right apart."""
    assert np.array_equal(make_jaw_kernel(), PARSED["jaw_kernel"])
    for cheeks, name in (((80, 80), "mask_jaw_cheek80"), ((40, 120), "mask_jaw_cheek40_120")):
        assert np.array_equal(make_parsing_mask(PARSED["class_map"], "jaw", cheeks), PARSED[name])
    widest, narrowest = (make_parsing_mask(PARSED["class_map"], "jaw", (width, width)) for width in (256, 0))
    assert np.count_nonzero(widest) > np.count_nonzero(narrowest) > 0


@pytest.mark.parametrize("case", CASES)
def test_masks_are_the_references(case: str) -> None:
    """Crop, limits, blur widths and every grey level, in all modes of both its programs."""
    golden = np.load(GOLDEN / case)
    box, crop = boxes(golden)
    assert crop == tuple(golden["crop_box"])
    side = crop[2] - crop[0]
    assert blur_width(side, prepared=False) == golden["normal_blur_kernel"][0]
    assert blur_width(side, prepared=True) == golden["prep_blur_kernel"][0]
    for mode in MODES:
        parsing = make_parsing_mask(PARSED["class_map"], mode)
        assert np.array_equal(make_blend_mask(parsing, box, crop, prepared=True), golden[f"prep_mask_{mode}"])
    jaw = make_parsing_mask(PARSED["class_map"], "jaw")
    assert np.array_equal(make_blend_mask(jaw, box, crop, prepared=False), golden["normal_mask_jaw"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_frames_are_the_references(case: str, mode: Mode) -> None:
    """From class map, face and frame to the very pixels of both its programs; a trimmed mask gives the same."""
    golden = np.load(GOLDEN / case)
    box, crop = boxes(golden)
    assert np.array_equal(fit_face(golden["face256_bgr"], box), golden["face_bgr"])
    parsing = make_parsing_mask(PARSED["class_map"], mode)
    for prepared, name in ((False, f"get_image_{mode}"), (True, f"blending_{mode}")):
        mask = make_blend_mask(parsing, box, crop, prepared=prepared)
        small, place = trim_mask(mask, box, crop, (320, 240))
        assert small.size < mask.size
        for given, where in ((mask, crop), (small, place)):
            frame = golden["frame_bgr"].copy()
            BgrBlend(given, box, where, (320, 240)).apply(frame, golden["face256_bgr"])
            assert np.array_equal(frame ^ golden["frame_bgr"], golden[f"change_{name}"])


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (5, 5, 7, 6), (10, 10, 10, 30), (310, 230, 330, 260), (-9, -9, 4, 4)])
def test_tiny_and_outlying_faces_do_no_harm(box: Box) -> None:
    """A box of a pixel, without width, or half outside the frame gives a mask of the crop's size and no accident."""
    crop = square_around(box)
    mask = make_blend_mask(make_parsing_mask(PARSED["class_map"], "jaw"), box, crop, prepared=True)
    assert mask.shape == (crop[3] - crop[1], crop[2] - crop[0])
    frame = np.full((240, 320, 3), 90, np.uint8)
    if box[2] > box[0]:
        BgrBlend(mask, box, crop, (320, 240)).apply(frame, np.full((256, 256, 3), 200, np.uint8))
    x1, y1, x2, y2 = intersect(box, (0, 0, 320, 240))
    frame[y1:y2, x1:x2] = 90
    assert (frame == 90).all()


def test_what_lies_outside_the_frame_is_black() -> None:
    """The square that is parsed has its full size at the edges."""
    frame = np.full((20, 30, 3), 7, np.uint8)
    square = crop_square(frame, (-4, 12, 12, 28))
    assert square.shape == (16, 16, 3)
    assert (square[:8, 4:] == 7).all()
    assert not square[8:].any()
    assert not square[:, :4].any()
    assert not crop_square(frame, (40, 40, 44, 44)).any()
