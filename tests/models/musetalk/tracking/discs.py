"""Detectors for tests that answer exactly, for red discs in place of faces."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.musetalk.nets import s3fd
from models.musetalk.tracking.detection import FaceNets
from tests.models.musetalk.toy_nets import toy_dwpose

CPU = torch.device("cpu")


class DiscDetector(nn.Module):
    """Answers like S3FD, exactly at any scale: the squares about red discs of 16 pixels of its input or more."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at: list[tuple[int, ...]] = []

    def forward(self, inputs: Tensor) -> s3fd.Levels:
        self.looked_at.append(tuple(inputs.shape))
        count, _, height, width = inputs.shape
        sizes = [(height // (4 << n) + 1, width // (4 << n) + 1) for n in range(6)]
        levels = [(torch.zeros(count, 2, *size), torch.zeros(count, 4, *size)) for size in sizes]
        for scores, _ in levels:
            scores[:, 0] = 9
        for number, picture in enumerate(inputs):
            for x, y, side in discs_in(picture + torch.tensor(s3fd.MEAN_SUBTRACTED).view(3, 1, 1)):
                tell(levels, number, x, y, side)
        return levels


def discs_in(rgb: Tensor) -> list[tuple[float, float, float]]:
    """Middle and diameter of each red disc, from its weight, to a fraction of a pixel."""
    red = ((rgb[0] - rgb[1] - rgb[2]) / 175).clamp(0, 1).numpy()
    _, labels = cv2.connectedComponents((red > 0.02).astype(np.uint8))
    found = []
    for label in range(1, labels.max() + 1):
        part = np.where(labels == label, red, 0)
        y, x = np.indices(part.shape)
        weight = part.sum()
        side = 2 * math.sqrt(weight / math.pi)
        if side >= 16:
            found.append(((x * part).sum() / weight + 0.5, (y * part).sum() / weight + 0.5, side))
    return found


def tell(levels: s3fd.Levels, number: int, x: float, y: float, side: float) -> None:
    """Write a square box into the level whose priors are of about its size; a larger one scores higher."""
    level = min(range(6), key=lambda n: abs(math.log(side / (16 << n))))
    stride, prior = 4 << level, 16 << level
    scores, offsets = levels[level]
    row, column = int(y // stride), int(x // stride)
    offset = [(x / stride - column - 0.5) * 2.5, (y / stride - row - 0.5) * 2.5]
    scores[number, :, row, column] = torch.tensor([0.0, 3 + side / 1000])
    offsets[number, :, row, column] = torch.tensor([*offset, *[math.log(side / prior) * 5] * 2])


def square(x: float, y: float, side: float) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def exact_nets() -> tuple[FaceNets, DiscDetector]:
    detector = DiscDetector()
    return FaceNets(detector, toy_dwpose(), CPU), detector
