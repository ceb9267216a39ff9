"""What the published configs say. They have no hash that could be confirmed, so a download is held to their values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class KnownConfig:
    """The values of a config that decide what a network computes.

    values       all of them
    is_complete  whether a file may say nothing else; names with "_" in front say who wrote it
    """

    values: Mapping[str, Any]
    is_complete: bool = True


UNET = KnownConfig(
    {
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 384,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 8,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }
)
VAE = KnownConfig(
    {
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 256,
        "scaling_factor": 0.18215,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
)
WHISPER = KnownConfig(
    {
        "activation_function": "gelu",
        "d_model": 384,
        "encoder_attention_heads": 6,
        "encoder_ffn_dim": 1536,
        "encoder_layers": 4,
        "max_source_positions": 1500,
        "num_mel_bins": 80,
        "scale_embedding": False,
    },
    is_complete=False,
)
MEL = KnownConfig(
    {
        "chunk_length": 30,
        "dither": 0.0,
        "feature_size": 80,
        "hop_length": 160,
        "n_fft": 400,
        "padding_value": 0.0,
        "sampling_rate": 16000,
    },
    is_complete=False,
)


def find_other_value(path: Path, known: KnownConfig) -> str:
    """Return in what a config differs from the published one; "" if in nothing that a network would notice."""
    if path.stat().st_size > LARGEST_BYTES:
        return "too large for a config"
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(found, dict):
        return "JSON, but no object"
    for name, value in found.items():
        wanted = known.values.get(name, value if name.startswith("_") or not known.is_complete else None)
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            return f"{name} {str(value)[:40]} instead of {wanted}"
    return ""
