"""Convolutions in 8 bits as PyTorch emulates them, against the steps that they should have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.emulation import round_kernel, round_values, run_in_8_bits
from models.musetalk.engines.qdq import LARGEST, Bits


@pytest.mark.parametrize(("bits", "steps"), [("int8", [0, 32, -64, 127, 127]), ("fp8", [0, 112, -224, 448, 448])])
def test_values_are_rounded_to_steps_of_the_largest(bits: Bits, steps: list[int]) -> None:
    """Larger ones are cut, and each filter of a kernel has a scale of its own."""
    values = torch.tensor([0.0, 0.25, -0.501, 1.0, 2.0])
    found = round_values(values, torch.tensor(1.0), bits)
    assert np.allclose(found * LARGEST[bits], steps)
    kernel = torch.stack([values, 100 * values]).reshape(2, 5, 1, 1)
    narrow = round_kernel(kernel, bits)
    assert torch.allclose(narrow[1], 100 * narrow[0])
    assert (narrow - kernel).abs().max() <= 100 * 2 / LARGEST["int8"]


@torch.no_grad()
def test_a_convolution_sees_rounded_values_and_is_as_before_afterwards() -> None:
    """What it gives isn't rounded."""
    torch.manual_seed(0)
    wide, values, most = torch.nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8), torch.tensor(2.5)
    exact, kernel = wide(values), round_kernel(wide.weight, "int8")
    with run_in_8_bits({wide: most}, "int8"):
        found = wide(values)
    assert torch.allclose(found, torch.nn.functional.conv2d(round_values(values, most, "int8"), kernel, wide.bias))
    assert 0 < (found - exact).abs().max() < 0.1
    assert torch.equal(wide(values), exact)
