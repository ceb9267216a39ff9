"""Folds: less arithmetic, the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.musetalk.inpainting.fusion import (
    FoldedUpsample,
    TimelessResnet,
    fold_time,
    fold_upsamplers,
    fold_values,
    transposed_kernel,
)
from tests.models.musetalk import tiny_nets

RELATIVE = 1e-5


def apart(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, of the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def count(net: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in net.modules())


def flops(net: Any, *given: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(*given)
    return counter.get_total_flops()


@pytest.mark.parametrize(("channels", "out"), [(3, 5), (64, 64), (512, 256)])
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (32, 32)])
def test_one_upsampler(channels: int, out: int, size: tuple[int, int]) -> None:
    """Nearest 2x and its convolution in one, edges included, from a single pixel up."""
    torch.manual_seed(0)
    plain = Upsample2D(channels, use_conv=True, out_channels=out).requires_grad_(False)
    x = torch.randn(2, channels, *size)
    assert apart(FoldedUpsample(plain)(x), plain(x)) <= RELATIVE


def test_kernel_of_a_single_tap() -> None:
    """Each tap of the small kernel lands where it is seen from both halves of a doubled pixel."""
    middle, corner = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)
    middle[0, 0, 1, 1] = corner[0, 0, 0, 0] = 1
    assert torch.equal(
        transposed_kernel(middle)[0, 0], torch.tensor([0.0, 1, 1, 0]).outer(torch.tensor([0.0, 1, 1, 0]))
    )
    assert torch.equal(
        transposed_kernel(corner)[0, 0], torch.tensor([0.0, 0, 1, 1]).outer(torch.tensor([0.0, 0, 1, 1]))
    )


def test_the_whole_decoder() -> None:
    """All three upsamplers go, the picture stays, and so does the plain decoder."""
    plain, z = tiny_nets.vae().decoder, torch.randn(2, 4, 32, 32)
    before = plain(z)
    folded = fold_upsamplers(plain)
    assert (count(folded, FoldedUpsample), count(folded, Upsample2D), count(plain, Upsample2D)) == (3, 0, 3)
    assert apart(folded(z), before) <= RELATIVE
    assert torch.equal(plain(z), before)


def test_the_whole_unet() -> None:
    """Upsamplers and the timestep: all resnets know the time that it always is, and the output stays."""
    torch.manual_seed(1)
    plain = tiny_nets.unet()
    given = torch.randn(2, 8, 32, 32), torch.zeros(1, dtype=torch.long), torch.randn(2, 50, 64)
    wanted = plain(*given).sample
    timeless, both = fold_time(plain), fold_time(fold_upsamplers(plain))
    assert (count(timeless, TimelessResnet), count(timeless, ResnetBlock2D)) == (22, 0)
    for folded in (timeless, both):
        assert apart(folded(*given).sample, wanted) <= RELATIVE
    assert torch.equal(plain(*given).sample, wanted)
    assert not any("time_emb" in name for name, _ in both.named_parameters())


def test_another_timestep() -> None:
    """The fold is of one timestep, whichever that is."""
    torch.manual_seed(2)
    plain, x, features = tiny_nets.unet(), torch.randn(1, 8, 32, 32), torch.randn(1, 50, 64)
    at_7 = plain(x, torch.tensor([7]), features).sample
    assert apart(fold_time(plain, 7)(x, torch.tensor([0]), features).sample, at_7) <= RELATIVE
    assert apart(fold_time(plain, 0)(x, torch.tensor([0]), features).sample, at_7) > 10 * RELATIVE


def test_folds_share_what_they_leave() -> None:
    """A folded network takes no memory for the tensors that stay the same."""
    plain = tiny_nets.unet()
    folded = fold_time(plain)
    own = {tensor.data_ptr() for tensor in plain.parameters()}
    new = [name for name, tensor in folded.named_parameters() if tensor.data_ptr() not in own]
    assert new
    assert all(name.endswith("conv1.bias") for name in new)


def test_full_widths_save_what_they_should() -> None:
    """Counted at the real sizes: 16 % of the decoder, 5 % of the UNet."""
    with torch.device("meta"):
        vae = AutoencoderKL(**tiny_nets.VAE_FULL).decoder
        unet = UNet2DConditionModel(**tiny_nets.UNET_FULL)
        z, x, features = torch.empty(1, 4, 32, 32), torch.empty(1, 8, 32, 32), torch.empty(1, 50, 384)
        time = torch.zeros(1)
    assert 1 - flops(fold_upsamplers(vae), z) / flops(vae, z) == pytest.approx(0.155, abs=0.01)
    assert 1 - flops(fold_upsamplers(unet), x, time, features) / flops(unet, x, time, features) == pytest.approx(
        0.053, abs=0.01
    )


@torch.no_grad()
def test_values_of_one_head_take_the_projection_of_the_result() -> None:
    """The VAE's attention loses a linear layer and keeps its numbers; the UNet's, of several heads, stays as it is."""
    plain, z = tiny_nets.vae().decoder, torch.randn(1, 4, 8, 8)
    before = plain(z)
    folded = fold_values(plain)
    assert count(folded, nn.Linear) == count(plain, nn.Linear) - 1
    assert apart(folded(z), before) <= RELATIVE
    assert torch.equal(plain(z), before)
    assert flops(folded, z) < flops(plain, z)
    assert fold_values(folded) is folded
    unet = tiny_nets.unet()
    assert fold_values(unet) is unet
