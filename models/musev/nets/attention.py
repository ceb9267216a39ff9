"""Attention of one frame: to the frame that is given, to the words and the picture, and to maps of the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class Scene:
    """What the layers of a frame have to know of its window.

    frames       of the window; the first one is the frame that is given
    image        (items x frames, tokens, width) tokens of the picture, or None
    image_scale  their weight beside the words
    """

    frames: int = 1
    image: Tensor | None = None
    image_scale: float = 1.0


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return the attention of (batch, tokens, channels) with `heads` heads."""
    parts = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


class GivenFrameAttention:
    """Self-attention of each frame whose keys and values are its own, followed by those of the frame that is given."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        layers: Any = attn
        query, key, value = (layer(hidden_states) for layer in (layers.to_q, layers.to_k, layers.to_v))
        found = attend(query, self.add_given_frame(key), self.add_given_frame(value), attn.heads)
        return attn.to_out[0](found)

    def add_given_frame(self, x: Tensor) -> Tensor:
        clip = x.unflatten(0, (-1, self.scene.frames))
        return torch.cat([clip, clip[:, :1].expand_as(clip)], dim=2).flatten(0, 1)


class WordsAndPictureAttention:
    """Attention to the words of the prompt, and beside them to the tokens of the picture where the network has any."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        query = attn.to_q(hidden_states)
        found = attend(query, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states), attn.heads)
        image, layers = self.scene.image, cast("Any", attn)
        if image is not None and hasattr(attn, "to_k_ip"):
            key, value = layers.to_k_ip(image), layers.to_v_ip(image)
            found = found + self.scene.image_scale * attend(query, key, value, attn.heads)
        return attn.to_out[0](found)


class ReferenceAttention(nn.Module):
    """Each frame attends to a map of the reference picture and to itself, beside a residual without weight."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, reference: Tensor, frames: int) -> Tensor:
        """Return x, (items x frames, channels, h, w), with details of `reference`, (items, channels, h', w')."""
        own = x.flatten(2).transpose(1, 2)
        shared = reference.flatten(2).transpose(1, 2).repeat_interleave(frames, dim=0)
        seen = torch.cat([shared, own], dim=1)
        found = self.to_out[0](attend(self.to_q(own), self.to_k(seen), self.to_v(seen), self.heads))
        return x + found.transpose(1, 2).view_as(x)
