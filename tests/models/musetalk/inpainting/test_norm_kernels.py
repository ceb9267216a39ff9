"""Our kernels beside PyTorch's group norm and SiLU, run by Triton's interpreter, without a card."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import group_norm, silu

from models.musetalk.inpainting import forms
from models.musetalk.inpainting.fused_weights import optimise
from tests.models.musetalk import tiny_nets

KERNELS = "models.musetalk.inpainting.norm_kernels"
GROUPS, EPS = 32, 1e-6
CHANNELS = (128, 256, 320, 512, 640, 960, 1280, 1920, 2560)
"""All widths that norms of UNet and decoder see."""


@pytest.fixture
def kernels() -> Any:
    """The kernels as Triton's interpreter runs them; see conftest.py."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the interpreter is for machines without a card")
    return importlib.import_module(KERNELS)


def make(channels: int, dtype: torch.dtype, count: int = 1, size: tuple[int, int] = (4, 3)) -> tuple[Tensor, ...]:
    torch.manual_seed(channels)
    x = (3 * torch.randn(count, channels, *size) + 5).to(dtype).contiguous(memory_format=torch.channels_last)
    return x, torch.rand(channels).add(0.5).to(dtype), torch.randn(channels).to(dtype)


def count_apart(found: Tensor, wanted: Tensor) -> float:
    """Return which part of the values is not the same to the bit."""
    return float((found != wanted).float().mean())


def narrow(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return values in another precision as the interpreter does it, which cuts bf16 where a card rounds."""
    if dtype == torch.bfloat16:
        values = (values.view(torch.int32) & -0x10000).view(torch.float32)
    return values.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_width_rounds_as_the_modules(kernels: Any, channels: int, dtype: torch.dtype) -> None:
    """From the same mean and deviation, in 16 bits to the bit but for a value in two hundred at an edge of rounding."""
    x, weight, bias = make(channels, dtype)
    grouped = x.double().reshape(GROUPS, -1)
    mean, scale = grouped.mean(1).float(), (grouped.var(1, correction=0) + EPS).rsqrt().float()
    normed = narrow(group_norm(x.float(), GROUPS, weight.float(), bias.float(), EPS), dtype)
    assert dtype == torch.bfloat16 or count_apart(normed, group_norm(x, GROUPS, weight, bias, EPS)) < 5e-3
    for act, wanted in ((False, normed), (True, narrow(silu(normed.float()), dtype))):
        found = kernels.normalise(x, mean, scale, weight, bias, silu=act)
        assert found.is_contiguous(memory_format=torch.channels_last)
        least = max(2 * torch.finfo(dtype).eps, 4e-6)
        assert torch.allclose(found, wanted, rtol=least, atol=least)
        assert dtype == torch.float32 or count_apart(found, wanted) < 5e-3, count_apart(found, wanted)


@pytest.mark.parametrize(("count", "size"), [(3, (5, 7)), (1, (1, 1)), (1, (24, 13))])
def test_odd_batches_and_sizes(kernels: Any, count: int, size: tuple[int, int]) -> None:
    """More pixels than one program sums, and fewer than a block; the whole is what the modules give in float32."""
    x, weight, bias = make(64, torch.float32, count, size)
    found = kernels.norm_and_silu(x, 8, weight, bias, EPS)
    assert torch.allclose(found, silu(group_norm(x, 8, weight, bias, EPS)), atol=2e-5)


def test_a_mean_far_from_zero_costs_no_digits(kernels: Any) -> None:
    """Of numbers about 1000 with a spread of 1 the deviation is right to a thousandth."""
    x = (torch.randn(1, 64, 8, 8, generator=torch.Generator().manual_seed(0)) + 1000).to(
        memory_format=torch.channels_last
    )
    _, scale = kernels.measure_groups(x, 8, EPS)
    wanted = x.double().reshape(8, -1).var(1, correction=0).rsqrt()
    assert torch.allclose(scale.double(), wanted, rtol=1e-3)


@torch.no_grad()
def test_a_decoder_with_kernels_is_the_decoder(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each norm before a SiLU is joined with it, and the picture stays the same."""
    monkeypatch.setattr(forms, "_import_kernels", lambda: kernels)
    monkeypatch.setattr(forms, "_runs_kernels", lambda given: given.shape[-1] <= 8)
    plain = optimise(tiny_nets.vae())
    formed = forms.arrange(plain, forms.FORMS["kernels"])
    joined = [module for module in formed.decoder.modules() if isinstance(module, forms.NormSilu)]
    assert len(joined) == 2 * sum("Resnet" in type(module).__name__ for module in formed.decoder.modules()) + 1
    latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(formed.decoder(latents), plain.decoder(latents), atol=1e-4)


def test_without_triton_the_modules_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has none, and a tensor that is on no card, take PyTorch's own."""
    monkeypatch.setattr(forms, "HAS_TRITON", False)
    norm = torch.nn.GroupNorm(4, 16)
    given = torch.randn(2, 16, 3, 3)
    assert torch.equal(forms.NormSilu(norm)(given), silu(norm(given)))
