"""UNet and VAE that are exported within seconds, for jobs with the tiny weights: few channels, and few layers."""

from __future__ import annotations

import json
from typing import Any

import torch

from models.musetalk.nets.diffusion import AutoencoderKL, UNet2DConditionModel
from models.musetalk.networks import Networks
from tests.models.musetalk.tiny_nets import VAE_FULL, WEIGHTS, cast_to

HEARD = json.loads((WEIGHTS / "musetalkV15" / "musetalk.json").read_text())["cross_attention_dim"]
CONTRAST = 0.2
"""Of the pictures: in 8 bits those of random weights differ too much in every stage, weaker ones in some."""


def load_small(_: Networks, dtype: torch.dtype) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """Stand in for `Networks._load_inpainter_nets`."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    small |= {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = UNet2DConditionModel(in_channels=8, out_channels=4, cross_attention_dim=HEARD, attention_head_dim=2, **small)
    config = {name: VAE_FULL[name] for name in ("down_block_types", "up_block_types")}
    vae = AutoencoderKL(block_out_channels=(4, 4, 4, 4), norm_num_groups=4, **config)
    vae.decoder.conv_out.weight.data *= CONTRAST
    return cast_to(dtype, unet), cast_to(dtype, vae)
