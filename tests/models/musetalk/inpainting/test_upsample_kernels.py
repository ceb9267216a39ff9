"""Our kernel beside PyTorch's doubling and convolution, run by Triton's interpreter, without a card."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, interpolate

from models.musetalk.inpainting import forms
from models.musetalk.inpainting.forms import Form, FusedUpsample
from models.musetalk.inpainting.fused_weights import optimise
from models.musetalk.inpainting.fusion import FoldedUpsample, transposed_kernel
from models.musetalk.inpainting.modules import Decode, channels_last_layout, to_bgr
from models.musetalk.inpainting.picture_gate import FREE, compare_pictures
from tests.models.musetalk import tiny_nets
from tests.models.musetalk.inpainting.meta_device import META
from tests.models.musetalk.inpainting.test_norm_kernels import narrow

HALF, BRAIN, FULL = DTYPES = (torch.float16, torch.bfloat16, torch.float32)
SHARED_BYTES = 99 << 10
"""What one program may take of a card from sm_86 to sm_120, of which sm_89 has the least."""
SIDES = {"unet": (4, 8, 16), "decoder": (32, 64, 128)}


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The kernels as Triton's interpreter runs them, where a module would run them on a card; see conftest.py."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the interpreter is for machines without a card")
    monkeypatch.setattr(forms, "_runs_kernels", lambda _: True)
    return importlib.import_module("models.musetalk.inpainting.upsample_kernels")


def make_exact(dtype: torch.dtype, count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return picture, kernel and bias whose sums are the same in every order."""
    torch.manual_seed(0)
    x, weight = torch.randint(-4, 5, (count, 20, *size)), torch.randint(-4, 5, (12, 20, 3, 3)) / 8
    return x.to(dtype), weight.to(dtype), torch.randn(12).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "count", "size"), [(HALF, 3, (2, 3)), (HALF, 1, (1, 1)), (BRAIN, 1, (2, 2)), (FULL, 1, (2, 2))]
)
def test_the_exact_mode_is_the_modules_to_the_bit(
    kernels: Any, dtype: torch.dtype, count: int, size: tuple[int, int]
) -> None:
    """It rounds after the sums and after the bias, as cuDNN's convolution and the addition after it."""
    x, weight, bias = make_exact(dtype, count, size)
    sums = narrow(conv2d(interpolate(x.float(), scale_factor=2), weight.float(), padding=1), dtype)
    wanted = narrow(sums.float() + bias.float()[:, None, None], dtype)
    found = kernels.double_and_convolve(x, kernels.pack_plain(weight), bias)
    assert torch.equal(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("dtype", "count", "size"), [(HALF, 3, (1, 2)), (BRAIN, 1, (2, 2)), (FULL, 1, (2, 1))])
def test_the_free_mode_is_the_folded_convolution(
    kernels: Any, dtype: torch.dtype, count: int, size: tuple[int, int]
) -> None:
    """At every pixel and edge; it rounds once."""
    x, weight, bias = make_exact(dtype, count, size)
    kernel = transposed_kernel(weight)
    wanted = narrow(conv_transpose2d(x.float(), kernel.float(), bias.float(), stride=2, padding=1), dtype)
    assert torch.equal(kernels.double_and_convolve(x, kernels.pack_folded(kernel), bias), wanted)


@torch.no_grad()
@pytest.mark.usefixtures("kernels")
def test_any_numbers_are_right_to_their_last_digit() -> None:
    """Sums in another order than the library's, of which fewer than 1 in 100 rounds otherwise in fp16."""
    torch.manual_seed(1)
    plain: Any = Upsample2D(80, use_conv=True, out_channels=8).to(HALF)
    x = torch.randn(1, 80, 2, 3).to(HALF)
    sums = conv2d(interpolate(x.float(), scale_factor=2), plain.conv.weight.float(), padding=1).to(HALF)
    found, wanted = FusedUpsample(plain)(x), sums + plain.conv.bias[:, None, None]
    assert torch.allclose(found, wanted, rtol=2e-3, atol=2e-3)
    assert float((found != wanted).float().mean()) < 0.01


@torch.no_grad()
@pytest.mark.usefixtures("kernels")
def test_a_decoder_with_the_kernel_passes_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pictures are within a level in 99.9 % of the values, with folded values too; another size runs as before."""
    monkeypatch.setattr(forms, "_runs_kernels", lambda given: given.shape[-1] <= 4 and given.shape[1] <= 16)
    plain = optimise(tiny_nets.vae())
    formed = forms.arrange(plain, Form(upsampler="kernel", norm="layout", values="folded"))
    fused = [module for module in formed.decoder.modules() if isinstance(module, FusedUpsample)]
    assert len(fused) == 3
    assert all(isinstance(module.plain, FoldedUpsample) for module in fused)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    found, wanted = (to_bgr(Decode(net, channels_last_layout).image(latents)) for net in (formed, plain))
    assert any(module.packed is not None for module in fused)
    assert compare_pictures(found, wanted, FREE).passes(FREE)
    odd = torch.ones(1, fused[0].plain.conv.in_channels, 2, 2)  # type: ignore[union-attr]
    assert torch.equal(fused[0](odd, (5, 5)), fused[0].plain(odd, (5, 5)))


def list_upsamplers() -> list[tuple[str, int, int, int]]:
    """Return name, side, channels and filters of all in the networks at full size."""
    found = []
    for name, make, config in (
        ("unet", UNet2DConditionModel, tiny_nets.UNET_FULL),
        ("decoder", AutoencoderKL, tiny_nets.VAE_FULL),
    ):
        with META:
            net: Any = make(**config)
        modules = [module for module in net.modules() if isinstance(module, Upsample2D)]
        sides = zip(modules, SIDES[name], strict=True)
        found += [(name, side, module.channels, module.out_channels) for module, side in sides]
    return found


def test_tiles_cover_every_shape_of_the_networks(kernels: Any) -> None:
    """All upsamplers, odd batches, all precisions: whole, in the shared memory of a card, and within 32 bits."""
    shapes = list_upsamplers()
    assert len(shapes) == 6
    for (_, side, channels, filters), dtype, count in ((s, d, n) for s in shapes for d in DTYPES for n in (1, 3, 16)):
        tiling = kernels.choose_tiling(side * side, channels, filters, dtype.itemsize)
        across, down, images = tiling.count_programs(side * side, filters, count)
        assert across * tiling.tall >= side * side > (across - 1) * tiling.tall
        assert down * tiling.wide >= filters > (down - 1) * tiling.wide
        assert images == 4 * count
        assert all(size >= 16 and size & (size - 1) == 0 for size in (tiling.tall, tiling.wide, tiling.deep))
        assert tiling.shared_bytes(dtype.itemsize) <= SHARED_BYTES
        assert max(4 * side * side * filters, side * side * channels, 16 * channels * filters) < 2**31


@torch.no_grad()
def test_without_triton_the_modules_run() -> None:
    """A tensor that is on no card takes the module as it was, to the bit."""
    plain = Upsample2D(6, use_conv=True, out_channels=4)
    given = torch.randn(2, 6, 3, 3)
    for module in (plain, FoldedUpsample(plain)):
        assert torch.equal(FusedUpsample(module)(given), module(given))
