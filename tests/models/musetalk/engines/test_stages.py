"""Stages in 8 bits: those that fail the gate stay in 16."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.musetalk.engines.stages import choose_stages

GREY = torch.full((1, 32, 32, 3), 100, dtype=torch.uint8)


def paint_with(tints: dict[str, int]) -> Callable[[tuple[str, ...]], Tensor]:
    """Paint grey, in which each stage in 8 bits makes a quarter of the first colour lighter by its levels."""

    def paint(kept: tuple[str, ...]) -> Tensor:
        found = GREY.clone()
        found[:, :8, :, 0] += sum(tints[stage] for stage in kept)
        return found

    return paint


def test_a_stage_that_shifts_a_colour_is_left_out() -> None:
    """It fails alone, though no value is off by more than 4 levels."""
    found = choose_stages(["conv_in", "mid_block"], paint_with({"conv_in": 1, "mid_block": 3}), GREY)
    assert found.kept == ("conv_in",)
    assert (found.alone["mid_block"].shift, found.alone["mid_block"].most) == (0.75, 3)
    assert found.together is not None
    assert found.together.shift == 0.25


def test_stages_that_pass_alone_may_fail_together() -> None:
    """The worst of them goes until the rest passes; where none does, none is kept."""
    worst = {"a": 1, "b": 1, "c": 2}
    assert choose_stages(worst, paint_with(worst), GREY).kept == ("a", "b")
    none = choose_stages(["a"], paint_with({"a": 9}), GREY)
    assert (none.kept, none.together) == ((), None)
