"""In which number formats UNet and VAE are tried."""

from __future__ import annotations

import pytest
import torch

from models.musetalk.inpainting.precision import candidate_dtypes, find_wider
from tests.models.musetalk import tiny_nets


def test_precisions_to_try() -> None:
    """fp16 first on CUDA; on a CPU bf16 where it multiplies that, and never fp16."""
    half, brain, full = torch.float16, torch.bfloat16, torch.float32
    assert (
        candidate_dtypes("auto", "cuda", cpu_bf16=False)
        == candidate_dtypes("fp16", "cuda", cpu_bf16=True)
        == (half, brain, full)
    )
    assert candidate_dtypes("bf16", "cuda", cpu_bf16=False) == (brain, full)
    assert candidate_dtypes("fp32", "cuda", cpu_bf16=True) == (full,)
    assert (candidate_dtypes("auto", "cpu", cpu_bf16=True), candidate_dtypes("auto", "cpu", cpu_bf16=False)) == (
        (brain,),
        (full,),
    )
    assert candidate_dtypes("bf16", "cpu", cpu_bf16=False) == (brain,)
    for cpu_bf16 in (True, False):
        assert (
            candidate_dtypes("fp16", "cpu", cpu_bf16=cpu_bf16)
            == candidate_dtypes("fp32", "cpu", cpu_bf16=cpu_bf16)
            == (full,)
        )
    with pytest.raises(ValueError, match="fp16"):
        tiny_nets.inpainter(torch.float16)


def test_what_overflows_goes_to_a_wider_precision() -> None:
    """fp16 to bf16 where the device has it, then to fp32, and no further."""
    half, brain, full = torch.float16, torch.bfloat16, torch.float32
    assert [find_wider(dtype) for dtype in (half, brain, full)] == [brain, full, None]
    assert [find_wider(dtype, bf16=False) for dtype in (half, brain, full)] == [full, full, None]
