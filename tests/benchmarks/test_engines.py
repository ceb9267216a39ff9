"""What `benchmarks.engines` prints, and its random weights."""

from __future__ import annotations

import torch

from benchmarks.engines import format_plan, smooth_kernels
from models.musetalk.engines.plan import EnginePlan


def test_smooth_kernels_keep_their_spread() -> None:
    """The middle weighs most, and the numbers are as large as before; other kernels stay."""
    torch.manual_seed(0)
    wide, narrow = torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 8, 1)
    first, second = (one.weight.detach().clone() for one in (wide, narrow))
    smooth_kernels(torch.nn.Sequential(wide, narrow))
    made = wide.weight.detach().abs()
    assert torch.allclose(made.norm(), first.norm())
    assert made[..., 1, 1].mean() > 2 * made[..., 0, 0].mean()
    assert torch.equal(narrow.weight, second)


def test_each_stage_has_a_row() -> None:
    """With what the gate found and where it runs; what holds for all has no precision of its own."""
    found = {"within": 0.995, "shift": 0.25, "most": 9}
    plan = EnginePlan(
        "int8", "fp32", stages={"unet mid_block": "int8"}, verdict={"unet mid_block": found, "together": found}
    )
    rows = [*format_plan(plan)]
    assert rows[2] == "| unet mid_block | 99.50 % | 0.25 | 9 | int8 |"
    assert rows[3] == "| together | 99.50 % | 0.25 | 9 |  |"
