"""What a face goes through: pixels to latents, latents and sound to a new latent, that to pixels.

Plain modules over diffusers' networks. They run on any device and in any precision, and are what is folded, compiled
and compared.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.musetalk.nets.diffusion import AutoencoderKL, UNet2DConditionModel

SIDE = 256
"""Pixels of the square that a face is painted in; its latent is 32 x 32."""
LATENT = (4, SIDE // 8, SIDE // 8)
_HIDDEN_FROM = SIDE // 2  # rows below are what the UNet has to invent
MOST_TOKENS = 512
"""Rows of the positional table; no window has more tokens."""


def positional_encoding(rows: int, width: int) -> Tensor:
    """Return (rows, width) float32: sines in the even columns, cosines in the odd ones (Vaswani et al., 2017)."""
    pace = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10_000.0) / width))
    angle = torch.arange(rows).float()[:, None] * pace
    return torch.stack([angle.sin(), angle.cos()], 2).reshape(rows, width)


def to_bgr(image: Tensor) -> Tensor:
    """Return the decoder's (n, 3, h, w), RGB in -1..1, as (n, h, w, 3) uint8 BGR, on the same device.

    In the reference's order: halved and clamped in the network's precision, scaled and rounded half to even in float32.
    The reference has no bf16, in which a clamped value would have 256 levels too coarse; so that is widened first.
    """
    unit = ((image.float() if image.dtype == torch.bfloat16 else image) / 2 + 0.5).clamp(0, 1)
    levels = (unit.float() * 255).round().to(torch.uint8)
    return levels.flip(1).permute(0, 2, 3, 1).contiguous()


class MemoryLayout(Protocol):
    """The order of a tensor in memory when it enters a network."""

    def __call__(self, tensor: Tensor, /) -> Tensor: ...


def contiguous_layout(tensor: Tensor) -> Tensor:
    return tensor.contiguous()


def channels_last_layout(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


class Encode(nn.Module):
    """(n, 256, 256, 3) uint8 BGR -> (n, 8, 32, 32) float32: the face with its lower half hidden, then the whole face.

    The mode of the posterior, so that the same face always has the same latents.
    """

    def __init__(self, vae: AutoencoderKL, layout: MemoryLayout) -> None:
        super().__init__()
        self.vae, self.layout = vae, layout

    def forward(self, crops: Tensor) -> Tensor:
        whole = crops.flip(-1).permute(0, 3, 1, 2).float() / 255
        hidden = whole.clone()
        hidden[:, :, _HIDDEN_FROM:] = 0
        pixels = (torch.cat([hidden, whole]) - 0.5) / 0.5
        posterior = self.vae.encode(self.layout(pixels.to(self.vae.dtype))).latent_dist
        latents = posterior.mode().float() * self.vae.config["scaling_factor"]
        return torch.cat(latents.chunk(2), 1)


class Predict(nn.Module):
    """Latents (n, 8, 32, 32) and audio_windows (n, tokens, d), float32 -> the new latent (n, 4, 32, 32)."""

    table: Tensor
    timestep: Tensor

    def __init__(self, unet: UNet2DConditionModel, layout: MemoryLayout) -> None:
        super().__init__()
        self.unet, self.layout = unet, layout
        device = next(unet.parameters()).device  # diffusers' own `device` imports torch's compiler
        table = positional_encoding(MOST_TOKENS, unet.config["cross_attention_dim"]).to(device, unet.dtype)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("timestep", torch.zeros(1, dtype=torch.long, device=device), persistent=False)

    def forward(self, latents: Tensor, audio_windows: Tensor) -> Tensor:
        features = audio_windows.to(self.table.dtype) + self.table[: audio_windows.shape[1]]
        given = self.layout(latents.to(self.table.dtype))
        return self.unet(given, self.timestep, encoder_hidden_states=features, return_dict=False)[0].contiguous()


class Decode(nn.Module):
    """Latents (n, 4, 32, 32) in the network's precision -> (n, 256, 256, 3) uint8 BGR, and (n,) bool.

    The second tells which faces come of finite numbers: after an overflow a face is black blocks.
    """

    def __init__(self, vae: Any, layout: MemoryLayout) -> None:
        """Take an AutoencoderKL, or an AutoencoderTiny, whose latents are the scaled ones themselves."""
        super().__init__()
        self.before = getattr(vae, "post_quant_conv", None) or nn.Identity()
        self.decoder, self.layout = vae.decoder, layout
        self.scale: float = vae.config["scaling_factor"]

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        image = self.image(latents)
        return to_bgr(image), image.isfinite().flatten(1).all(1)

    def image(self, latents: Tensor) -> Tensor:
        """Decode to (n, 3, 256, 256) RGB, in -1..1 where it isn't clipped yet."""
        return self.decoder(self.layout(self.before(latents / self.scale)))
