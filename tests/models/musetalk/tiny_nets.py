"""UNet and VAE with few channels, in the shape of the real ones, on the CPU; new ones each time."""

from __future__ import annotations

import json
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file

from models.musetalk.inpainting.inpainter import Inpainter
from tests.models.musetalk.recipe import DATA

CPU = torch.device("cpu")
WEIGHTS = DATA / "weights"
UNET_FULL: dict[str, Any] = json.loads((WEIGHTS / "musetalkV15" / "musetalk.json").read_text()) | {
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 384,
    "norm_num_groups": 32,
}
VAE_FULL: dict[str, Any] = json.loads((WEIGHTS / "sd-vae" / "config.json").read_text()) | {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
}


def unet(dtype: torch.dtype = torch.float32) -> Any:
    folder = WEIGHTS / "musetalkV15"
    net = UNet2DConditionModel(**json.loads((folder / "musetalk.json").read_text()))
    net.load_state_dict(torch.load(folder / "unet.pth", weights_only=True))
    return cast_to(dtype, net)


def vae(dtype: torch.dtype = torch.float32) -> Any:
    folder = WEIGHTS / "sd-vae"
    net = AutoencoderKL(**json.loads((folder / "config.json").read_text()))
    net.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return cast_to(dtype, net)


def cast_to(dtype: torch.dtype, net: Any) -> Any:
    return torch.nn.Module.to(net, dtype).eval().requires_grad_(False)


def miniature(dtype: torch.dtype = torch.float32, **options: Any) -> Inpainter:
    """A inpainter for what isn't about numbers: the same ways in and out, and next to nothing between. d is 16."""
    return Inpainter(*miniature_nets(dtype), CPU, **options)


def miniature_nets(dtype: torch.dtype) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    torch.manual_seed(0)
    small: dict[str, Any] = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    small["down_block_types"] = ("DownBlock2D", "CrossAttnDownBlock2D")
    small["up_block_types"] = ("CrossAttnUpBlock2D", "UpBlock2D")
    net = UNet2DConditionModel(in_channels=8, out_channels=4, cross_attention_dim=16, attention_head_dim=2, **small)
    config = {name: VAE_FULL[name] for name in ("down_block_types", "up_block_types")}
    pictures = AutoencoderKL(block_out_channels=(4, 4, 4, 4), norm_num_groups=4, **config)
    return cast_to(dtype, net), cast_to(dtype, pictures)


def inpainter(dtype: torch.dtype = torch.float32, **options: Any) -> Inpainter:
    return Inpainter(unet(dtype), vae(dtype), CPU, **options)
