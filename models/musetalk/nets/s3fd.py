"""S3FD, the face detector: VGG-16 and six levels of square priors (Zhang et al., 2017). Named as in its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from models.arrays import F32

MEAN_SUBTRACTED = (104.0, 117.0, 123.0)
"""From R, G, B in this order. They are the means of B, G, R: the weights were always used with this mix-up."""

_GROUPS = ((1, 1, 2), (2, 2, 2), (3, 4, 3), (4, 8, 3), (5, 8, 3))
_SOURCES = ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2")
_VARIANCES = (0.1, 0.2)
_SAME_FACE = 0.3

Levels = list[tuple[Tensor, Tensor]]
"""Of each level, finest first: scores before softmax (n, 2, h, w), background and face; offsets (n, 4, h, w)."""


class Scale(nn.Module):
    """Each pixel's channels brought to length one, times a learned weight."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        length = x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10
        return x / length * self.weight.view(1, -1, 1, 1)


class S3FD(nn.Module):
    """(n, 3, h, w) float32 RGB 0..255 less MEAN_SUBTRACTED -> Levels. `width` is 64 in the published weights."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.add_trunk(width)
        for name, times, initial in (("conv3_3", 4, 10.0), ("conv4_3", 8, 8.0), ("conv5_3", 8, 5.0)):
            self.add_module(f"{name}_norm", Scale(times * width, initial))
        for name, times in zip(_SOURCES, (4, 8, 8, 16, 8, 4), strict=True):
            scores = 4 if name == _SOURCES[0] else 2
            self.add_module(f"{name}_mbox_conf", nn.Conv2d(times * width, scores, 3, padding=1))
            self.add_module(f"{name}_mbox_loc", nn.Conv2d(times * width, 4, 3, padding=1))

    def add_trunk(self, width: int) -> None:
        channels = 3
        for group, times, convs in _GROUPS:
            for number in range(1, convs + 1):
                self.add_module(f"conv{group}_{number}", nn.Conv2d(channels, times * width, 3, padding=1))
                channels = times * width
        self.fc6 = nn.Conv2d(channels, 16 * width, 3, padding=3)
        self.fc7 = nn.Conv2d(16 * width, 16 * width, 1)
        self.conv6_1 = nn.Conv2d(16 * width, 4 * width, 1)
        self.conv6_2 = nn.Conv2d(4 * width, 8 * width, 3, stride=2, padding=1)
        self.conv7_1 = nn.Conv2d(8 * width, 2 * width, 1)
        self.conv7_2 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Levels:
        return [self.head(name, source) for name, source in zip(_SOURCES, self.sources(x), strict=True)]

    def sources(self, x: Tensor) -> list[Tensor]:
        found = []
        for group, _, convs in _GROUPS:
            for number in range(1, convs + 1):
                x = F.relu(self.get_submodule(f"conv{group}_{number}")(x), inplace=True)
            if group >= 3:
                found.append(self.get_submodule(f"conv{group}_3_norm")(x))
            x = F.max_pool2d(x, 2)
        x = F.relu(self.fc7(F.relu(self.fc6(x))))
        found.append(x)
        for name in ("6", "7"):
            x = F.relu(self.get_submodule(f"conv{name}_1")(x))
            x = F.relu(self.get_submodule(f"conv{name}_2")(x))
            found.append(x)
        return found

    def head(self, name: str, source: Tensor) -> tuple[Tensor, Tensor]:
        scores: Tensor = self.get_submodule(f"{name}_mbox_conf")(source)
        offsets: Tensor = self.get_submodule(f"{name}_mbox_loc")(source)
        if scores.shape[1] == 4:
            scores = torch.cat([scores[:, :3].amax(1, keepdim=True), scores[:, 3:]], 1)
        return scores, offsets


def width_of(state: Mapping[str, Any]) -> int:
    """Return the `width` that a state dict was made with."""
    return int(state["conv1_1.weight"].shape[0])


def network_input(frames: Tensor) -> Tensor:
    """Convert (n, h, w, 3) uint8 BGR -> (n, 3, h, w) float32, on the same device."""
    rgb = frames.flip(-1).permute(0, 3, 1, 2).to(torch.float32)
    return rgb - rgb.new_tensor(MEAN_SUBTRACTED).view(1, 3, 1, 1)


def find_candidates(levels: Levels, above: float) -> list[F32]:
    """Return of each picture (k, 5) x1, y1, x2, y2, score: priors with a score above `above`, level by level."""
    likely = [_select_likely(4 << number, scores, offsets, above) for number, (scores, offsets) in enumerate(levels)]
    pictures = torch.cat([picture for picture, _ in likely]).cpu().numpy()
    rows = torch.cat([rows for _, rows in likely]).cpu().numpy().astype(np.float32)
    return [rows[pictures == index] for index in range(len(levels[0][0]))]


def _select_likely(stride: int, scores: Tensor, offsets: Tensor, above: float) -> tuple[Tensor, Tensor]:
    """Return of one level the picture of each likely prior (k,), and its box and score (k, 5)."""
    score = scores.softmax(1)[:, 1]
    picture, row, column = torch.nonzero(score > above, as_tuple=True)
    size, offset = 4.0 * stride, offsets[picture, :, row, column]
    centre = torch.stack([column, row], 1) * stride + stride / 2 + offset[:, :2] * (_VARIANCES[0] * size)
    side = size * torch.exp(offset[:, 2:] * _VARIANCES[1])
    corner = centre - side / 2
    return picture, torch.cat([corner, corner + side, score[picture, row, column, None]], 1)


def suppress_overlaps(found: F32) -> F32:
    """Return one of (k, 5) boxes for each face, best first: greedy suppression, a box counted to its last pixel."""
    rest = found[np.argsort(found[:, 4])[::-1]]
    kept = []
    while len(rest):
        kept.append(rest[0])
        rest = rest[1:][iou(rest[0], rest[1:]) <= _SAME_FACE]
    return np.array(kept, np.float32).reshape(-1, 5)


def iou(box: F32, others: F32) -> F32:
    """Return the intersection over union of one box with (k, 4 or 5) others."""
    sides = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2]) + 1
    shared = np.prod(np.maximum(sides, 0), 1)
    areas = np.prod(others[:, 2:4] - others[:, :2] + 1, 1) + np.prod(box[2:4] - box[:2] + 1)
    return np.asarray(shared / (areas - shared), np.float32)
