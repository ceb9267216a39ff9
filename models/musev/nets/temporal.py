"""Layers that see all frames of a window at once: convolutions and attention along the time."""

from __future__ import annotations

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.nn import functional

DROPOUT = 0.1
"""As in training; it does nothing when a network runs."""


def split_frames(x: Tensor, frames: int) -> Tensor:
    """Return (items, channels, frames, height, width) of frames that are in the batch."""
    return x.unflatten(0, (-1, frames)).transpose(1, 2)


def join_frames(x: Tensor) -> Tensor:
    """Return (items x frames, channels, height, width), the inverse of `split_frames`."""
    return x.transpose(1, 2).flatten(0, 1)


class TemporalConv(nn.Module):
    """Four convolutions along the time beside a residual; their norms count all frames of the window."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Sequential(
                nn.GroupNorm(groups, channels),
                nn.SiLU(),
                *([nn.Dropout(DROPOUT)] if number else []),
                nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0)),
            )
            for number in range(4)
        )
        self.temporal_weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Return x, (items x frames, channels, height, width), with motion added."""
        clip = split_frames(x, frames)
        moved = self.conv4(self.conv3(self.conv2(self.conv1(clip))))
        return join_frames(clip + self.temporal_weight.abs() * moved)


class TemporalAttention(nn.Module):
    """Each place attends to itself in all frames of the window, which know their number by `frame_embedding`."""

    def __init__(self, channels: int, heads: int, groups: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.frame_emb_proj = nn.Linear(embedding, channels)
        block = BasicTransformerBlock(channels, heads, channels // heads, double_self_attention=True)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Linear(channels, channels)
        self.temporal_weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, frame_embedding: Tensor) -> Tensor:
        """Return x, (items x frames, channels, height, width), with motion added; `frame_embedding` (frames, n)."""
        clip = split_frames(x, len(frame_embedding))
        items, _, frames, height, width = clip.shape
        places = self.norm(clip).permute(0, 3, 4, 2, 1).flatten(0, 2)
        places = self.proj_in(places) + self.frame_emb_proj(functional.silu(frame_embedding))
        for block in self.transformer_blocks:
            places = block(places)
        moved = self.proj_out(places).view(items, height, width, frames, -1).permute(0, 4, 3, 1, 2)
        return join_frames(clip + self.temporal_weight.abs() * moved)
