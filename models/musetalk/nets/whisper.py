"""Whisper's encoder (Radford et al., 2022): mel frames, two convolutions and transformer blocks, all states kept.

The same numbers as of transformers' WhisperEncoder and WhisperFeatureExtractor, without seconds of imports.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from models.arrays import F32, F64

RATE = 16_000
_MEL_KNEE_HZ, _MELS_BELOW, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27
_RANGE, _FLOOR = 8.0, 1e-10


class MelSpectrogram:
    """Mel frames of a sound, of which each row is in powers of ten, from a config of transformers."""

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = RATE,
        hop_length: int = 160,
        chunk_length: int = 30,
        n_fft: int = 400,
        **_ignored: Any,
    ) -> None:
        """Raise ValueError for a rate at which nothing here is sampled."""
        if sampling_rate != RATE:
            raise ValueError(f"its sound has {sampling_rate} samples a second instead of {RATE}")
        self.feature_size, self._hop, self._width = feature_size, hop_length, n_fft
        self._samples = chunk_length * sampling_rate
        self.mel_filters = make_mel_filters(1 + n_fft // 2, feature_size, sampling_rate)

    def __call__(self, chunk: F32) -> Tensor:
        """Return the frames of a sound (n,), filled up with silence or cut: (1, mels, frames) float32."""
        sound = np.zeros((1, self._samples), np.float32)
        sound[0, : len(chunk)] = chunk[: self._samples]
        window = torch.hann_window(self._width)
        waves = torch.stft(torch.from_numpy(sound), self._width, self._hop, window=window, return_complex=True)
        power = (waves[..., :-1].abs() ** 2).contiguous()
        levels = torch.clamp(torch.from_numpy(self.mel_filters).to(torch.float32).T @ power, min=_FLOOR).log10()
        return (torch.maximum(levels, levels.max() - _RANGE) + 4.0) / 4.0


def make_mel_filters(bins: int, mels: int, rate: int, top_hz: float = 8000.0) -> F64:
    """Return triangles of equal area on Slaney's mel scale: (bins, mels)."""
    top = _MELS_BELOW + np.log(top_hz / _MEL_KNEE_HZ) * (27.0 / np.log(6.4))
    places = np.linspace(0.0, top, mels + 2)
    edges = np.where(
        places >= _MELS_BELOW, _MEL_KNEE_HZ * np.exp(_LOG_STEP * (places - _MELS_BELOW)), 200.0 * places / 3.0
    )
    slopes = edges[None] - np.linspace(0, rate // 2, bins)[:, None]
    down, up = -slopes[:, :-2] / np.diff(edges)[:-1], slopes[:, 2:] / np.diff(edges)[1:]
    area: F64 = 2.0 / (edges[2:] - edges[:mels])
    return np.asarray(np.maximum(np.zeros(1), np.minimum(down, up)) * area[None], np.float64)


class Encoder(nn.Module):
    """Mel frames (n, mels, 2 * positions) -> the states before each block and after the last one's norm."""

    def __init__(
        self,
        d_model: int = 384,
        encoder_layers: int = 4,
        encoder_attention_heads: int = 6,
        encoder_ffn_dim: int = 1536,
        num_mel_bins: int = 80,
        max_source_positions: int = 1500,
        activation_function: str = "gelu",
        **_ignored: Any,
    ) -> None:
        """Raise ValueError for a config that makes no such network; the names are those of transformers."""
        super().__init__()
        if activation_function != "gelu" or d_model % encoder_attention_heads:
            raise ValueError(f"{d_model} numbers, {encoder_attention_heads} heads and {activation_function} don't fit")
        self.conv1 = nn.Conv1d(num_mel_bins, d_model, 3, padding=1)
        self.conv2 = nn.Conv1d(d_model, d_model, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(max_source_positions, d_model)
        blocks = (Block(d_model, encoder_attention_heads, encoder_ffn_dim) for _ in range(encoder_layers))
        self.layers = nn.ModuleList(blocks)
        self.layer_norm = nn.LayerNorm(d_model)

    def forward(self, mel: Tensor) -> tuple[Tensor, ...]:
        hidden = gelu(self.conv2(gelu(self.conv1(mel)))).permute(0, 2, 1) + self.embed_positions.weight
        states = [hidden]
        for block in self.layers:
            states.append(block(states[-1]))
        return (*states[:-1], self.layer_norm(states[-1]))


class Block(nn.Module):
    """Attention and two linear layers, each after a norm and added to what goes by."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.self_attn_layer_norm(hidden))
        return hidden + self.fc2(gelu(self.fc1(self.final_layer_norm(hidden))))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden: Tensor) -> Tensor:
        given = self.q_proj(hidden) * self.scale, self.k_proj(hidden), self.v_proj(hidden)
        query, key, value = (one.unflatten(2, (self.heads, -1)).transpose(1, 2).contiguous() for one in given)
        seen = scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.out_proj(seen.transpose(1, 2).flatten(2))
