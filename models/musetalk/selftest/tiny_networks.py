"""Narrow networks of the real shapes with weights from a seed: what the self-test runs without any file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from models.musetalk.nets.bisenet import BiSeNet
from models.musetalk.nets.diffusion import AutoencoderKL, UNet2DConditionModel
from models.musetalk.nets.dwpose import DwPose
from models.musetalk.nets.s3fd import S3FD
from models.musetalk.nets.whisper import Encoder

FEATURES, LAYERS = 64, 4
"""Of the features of a sound: their width, and the layers of Whisper's encoder."""

_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 8,
    "out_channels": 4,
    "attention_head_dim": 8,
    "block_out_channels": (32, 64, 64, 64),
    "cross_attention_dim": FEATURES,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
_VAE: dict[str, Any] = {
    "sample_size": 256,
    "block_out_channels": (16, 32, 32, 32),
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
_WHISPER: dict[str, Any] = {
    "d_model": FEATURES,
    "encoder_layers": LAYERS,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 4 * FEATURES,
}
_POSE_WIDTH, _FACE_WIDTH = 16, 8


def build_unet() -> UNet2DConditionModel:
    return _build_seeded(lambda: UNet2DConditionModel(**_UNET))


def build_vae() -> AutoencoderKL:
    return _build_seeded(lambda: AutoencoderKL(**_VAE))


def build_whisper() -> Encoder:
    """Build the encoder of a Whisper with random weights."""
    return _build_seeded(lambda: Encoder(**_WHISPER))


def build_face_networks() -> dict[str, nn.Module]:
    """Build the detector, the pose net and the parser, by the names of their weights."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "s3fd": lambda: S3FD(_FACE_WIDTH),
        "pose": lambda: DwPose(_POSE_WIDTH),
        "bisenet": lambda: BiSeNet(_FACE_WIDTH),
    }
    return {name: _build_seeded(make) for name, make in makers.items()}


def _build_seeded(make: Callable[[], Any]) -> Any:
    """Build a network on the CPU in float32, with the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)
