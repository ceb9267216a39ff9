"""The gate on the picture: what passes, and what does not."""

from __future__ import annotations

import torch

from models.musetalk.inpainting.forms import _passes_gate
from models.musetalk.inpainting.picture_gate import FREE, QUANTISED, compare_pictures

GREY = torch.full((2, 32, 32, 3), 100, dtype=torch.uint8)


def test_a_few_values_far_off_and_no_more() -> None:
    """99.9 % have to be within a level; all of one more level pass as whole numbers of 8 bits do, but for the tone."""
    few, many = GREY.clone(), GREY.clone()
    few.view(-1)[:6] += 50
    many.view(-1)[:7] += 50
    assert compare_pictures(few, GREY, FREE).passes(FREE)
    assert not compare_pictures(many, GREY, FREE).passes(FREE)
    assert compare_pictures(many, GREY, QUANTISED).passes(QUANTISED)
    assert compare_pictures(many, GREY, FREE).most == 50


def test_a_tint_of_one_picture_fails_though_each_value_is_near() -> None:
    """The mean of each colour of each picture counts."""
    tinted = GREY.clone()
    tinted[1, ..., 0] += 1
    found = compare_pictures(tinted, GREY, QUANTISED)
    assert (found.within, found.shift) == (1.0, 1.0)
    assert not found.passes(QUANTISED)


def test_forms_are_held_to_a_level() -> None:
    """An image that is 3 levels lighter at one pixel in a hundred is another one."""
    image = torch.zeros(1, 3, 100, 100)
    lighter = image.clone()
    lighter[..., 0] += 6 / 255
    assert _passes_gate(image + 0.5 / 255, image)
    assert not _passes_gate(lighter, image)
