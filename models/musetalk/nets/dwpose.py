"""DWPose, the pose net: RTMPose-l for 133 whole-body points at 288x384 (Jiang et al., 2023). Names as in its file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

POINTS = 133
WIDTH, HEIGHT = 288, 384
BINS_A_PIXEL = 2
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class ConvBnSilu(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)))


class SeparableConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvBnSilu(channels, channels, 5, groups=channels)
        self.pointwise_conv = ConvBnSilu(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pointwise_conv(self.depthwise_conv(x))
        return y


class Block(nn.Module):
    def __init__(self, channels: int, add: bool) -> None:
        super().__init__()
        self.conv1 = ConvBnSilu(channels, channels, 3)
        self.conv2 = SeparableConv(channels)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return y + x if self.add else y


class ChannelAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class CspLayer(nn.Module):
    def __init__(self, channels: int, blocks: int, add: bool) -> None:
        super().__init__()
        half = channels // 2
        self.main_conv = ConvBnSilu(channels, half)
        self.short_conv = ConvBnSilu(channels, half)
        self.final_conv = ConvBnSilu(channels, channels)
        self.blocks = nn.Sequential(*[Block(half, add) for _ in range(blocks)])
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], 1)
        y: Tensor = self.final_conv(self.attention(both))
        return y


class PyramidPooling(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBnSilu(channels, channels // 2)
        self.conv2 = ConvBnSilu(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        y: Tensor = self.conv2(torch.cat([x] + [F.max_pool2d(x, size, 1, size // 2) for size in (5, 9, 13)], 1))
        return y


def _stage(channels: int, blocks: int, *, last: bool = False) -> nn.Sequential:
    pooling = [PyramidPooling(2 * channels)] if last else []
    layer = CspLayer(2 * channels, blocks, not last)
    return nn.Sequential(ConvBnSilu(channels, 2 * channels, 3, 2), *pooling, layer)


class CspNext(nn.Module):
    """(n, 3, 384, 288) -> (n, 16 * width, 12, 9)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.stem = nn.Sequential(ConvBnSilu(3, half, 3, 2), ConvBnSilu(half, half, 3), ConvBnSilu(half, width, 3))
        self.stage1 = _stage(width, 3)
        self.stage2 = _stage(2 * width, 6)
        self.stage3 = _stage(4 * width, 6)
        self.stage4 = _stage(8 * width, 3, last=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(x)))))
        return y


class ScaleNorm(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = features**-0.5
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=2, keepdim=True) * self.scale
        y: Tensor = x / length.clamp(min=1e-5) * self.g
        return y


class ResidualScale(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class GatedAttention(nn.Module):
    """Points look at each other (Hua et al., 2022), with squared ReLU for the weights."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.parts = [2 * features, 2 * features, features // 2]
        self.gamma = nn.Parameter(torch.rand(2, features // 2))
        self.beta = nn.Parameter(torch.rand(2, features // 2))
        self.o = nn.Linear(2 * features, features, bias=False)
        self.uv = nn.Linear(features, sum(self.parts), bias=False)
        self.ln = ScaleNorm(features)
        self.res_scale = ResidualScale(features)

    def forward(self, x: Tensor) -> Tensor:
        gate, value, base = torch.split(F.silu(self.uv(self.ln(x))), self.parts, 2)
        query, key = (base.unsqueeze(2) * self.gamma + self.beta).unbind(2)
        weight = F.relu(query @ key.transpose(1, 2) / math.sqrt(self.parts[2])).square()
        y: Tensor = self.res_scale(x) + self.o(gate * (weight @ value))
        return y


class SimccHead(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        places = (WIDTH // 32) * (HEIGHT // 32)
        self.final_layer = nn.Conv2d(16 * width, POINTS, 7, padding=3)
        self.mlp = nn.Sequential(ScaleNorm(places), nn.Linear(places, 4 * width, bias=False))
        self.gau = GatedAttention(4 * width)
        self.cls_x = nn.Linear(4 * width, WIDTH * BINS_A_PIXEL, bias=False)
        self.cls_y = nn.Linear(4 * width, HEIGHT * BINS_A_PIXEL, bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.gau(self.mlp(self.final_layer(features).flatten(2)))
        return self.cls_x(x), self.cls_y(x)


class DwPose(nn.Module):
    """(n, 3, 384, 288) RGB normalised by MEAN and STD -> simcc_x (n, 133, 576), simcc_y (n, 133, 768).

    `width` is 64 in the published weights.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.backbone = CspNext(width)
        self.head = SimccHead(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both: tuple[Tensor, Tensor] = self.head(self.backbone(x))
        return both


def width_of(state: Mapping[str, Any]) -> int:
    """Return the `width` that a state dict was made with."""
    return int(state["backbone.stem.2.conv.weight"].shape[0])


def network_input(crops: Tensor) -> Tensor:
    """Convert (n, 384, 288, 3) uint8 BGR -> (n, 3, 384, 288) float32, on the same device."""
    rgb = crops.flip(-1).permute(0, 3, 1, 2).to(torch.float32)
    return (rgb - rgb.new_tensor(MEAN).view(1, 3, 1, 1)) / rgb.new_tensor(STD).view(1, 3, 1, 1)


# fmt: off
MIRRORED = (
    0, *(side for left in range(1, 17, 2) for side in (left + 1, left)),     # nose; eyes to ankles
    20, 21, 22, 17, 18, 19,                                                  # feet
    *range(39, 22, -1), *range(49, 39, -1),                                  # jaw, brows
    *range(50, 54), *range(58, 53, -1),                                      # nose
    68, 67, 66, 65, 70, 69, 62, 61, 60, 59, 64, 63,                          # eyes
    *range(77, 70, -1), *range(82, 77, -1),                                  # outer lips
    *range(87, 82, -1), *range(90, 87, -1),                                  # inner lips
    *range(112, 133), *range(91, 112),                                       # hands
)
"""Of each COCO-WholeBody point its partner in a mirror."""
# fmt: on


def average_flip(plain: tuple[Tensor, Tensor], mirrored: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Average the results for pictures and for the same pictures mirrored: the flip test."""
    partner = torch.tensor(MIRRORED, device=plain[0].device)
    x, y = mirrored[0].flip(-1)[:, partner], mirrored[1][:, partner]
    return (plain[0] + x) * 0.5, (plain[1] + y) * 0.5


def locate_points(simcc: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return points (n, 133, 2) float32 x, y in pixels of the input, and scores (n, 133), from simcc.

    A point is its strongest bin, without any refinement; one with a score of 0 or less is at (-0.5, -0.5).
    """
    (across, x), (down, y) = simcc[0].max(2), simcc[1].max(2)
    score = torch.minimum(across, down)
    points = torch.stack([x, y], 2).to(torch.float32)
    return torch.where(score[..., None] > 0, points, -1.0) / BINS_A_PIXEL, score
