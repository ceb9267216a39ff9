"""A detector of the published kind, with weights by hand, for faces that say at each pixel where in them it lies.

Such a face is red by how far right and green by how far down a pixel is. Pooling takes the last pixel of each cell, so
cells know where the middle of the face is, to a fraction of a pixel, and by how much the next cell differs whether it
is of the size that a level looks for.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from models.musetalk.nets import s3fd
from models.musetalk.nets.s3fd import S3FD
from tests.models.musetalk.toy_nets import emptied

_LOW, _HIGH = 30 / 255, 1.0
_SAME = 1000.0  # a constant channel, beside which the others don't change a pixel's length
_TOLERANCE = 4 / 255
_SCORE = 8.0
RED, GREEN, CONSTANT, WRONG = 0, 1, 2, (4, 5, 6, 7, 8, 9, 10, 11)


def ramp_frame(width: int, height: int, x: float, y: float, side: float) -> np.ndarray:
    """(height, width, 3) BGR: dark noise, and one square face about (x, y)."""
    random = np.random.default_rng(3)
    frame = cv2.resize(random.uniform(0, 20, (9, 16, 3)).astype(np.float32), (width, height)).astype(np.uint8)
    left, top, right, bottom = (round(edge) for edge in (x - side / 2, y - side / 2, x + side / 2, y + side / 2))
    across, down = (
        (np.arange(start, stop) + 0.5 - middle) / side + 0.5
        for start, stop, middle in ((left, right, x), (top, bottom, y))
    )
    shades = (255 * (_LOW + (_HIGH - _LOW) * ramp) for ramp in (across, down))
    red, green = (np.rint(shade).clip(0, 255).astype(np.uint8) for shade in shades)
    frame[top:bottom, left:right, 2] = red
    frame[top:bottom, left:right, 1] = green[:, None]
    return frame


def ramp_s3fd(large: float, small: float) -> Any:
    """Sees faces of side `large` in its level of 16 pixels, and of side `small` in that of 8 pixels."""
    net: Any = emptied(S3FD(4))
    for channel, mean in ((RED, s3fd.MEAN_SUBTRACTED[0]), (GREEN, s3fd.MEAN_SUBTRACTED[1])):
        net.conv1_1.weight[channel, channel, 1, 1] = 1 / 255
        net.conv1_1.bias[channel] = mean / 255
    net.conv1_1.bias[CONSTANT] = _SAME
    for name, layer in net.named_children():
        if name[:4] == "conv" and name[4] in "12345" and len(name) == 7 and name != "conv1_1":
            for channel in range(min(12, layer.weight.shape[1])):
                layer.weight[channel, channel, 1, 1] = 1.0
        if name.endswith("conf"):
            layer.bias[-1] = -20.0
    for first, source, stride, side in (("conv4_1", "conv4_3", 8, small), ("conv5_1", "conv5_3", 16, large)):
        _compare_cells(net.get_submodule(first), stride * (_HIGH - _LOW) / side)
        _tell(net, f"{source}_norm", stride, side)
    return net


def _compare_cells(layer: Any, step: float) -> None:
    """Channels that are 0 where each neighbour, left, right, above and below, differs by `step`."""
    weight, bias = layer.weight, layer.bias
    weight[WRONG[0] :] = 0
    for number, (channel, row, column, sign) in enumerate(
        ((RED, 1, 0, 1), (RED, 1, 2, -1), (GREEN, 0, 1, 1), (GREEN, 2, 1, -1))
    ):
        for way, target in ((1, WRONG[2 * number]), (-1, WRONG[2 * number + 1])):
            weight[target, channel, 1, 1] = way * sign
            weight[target, channel, row, column] = -way * sign
            bias[target] = -way * step


def _tell(net: Any, name: str, stride: int, side: float) -> None:
    net.get_submodule(name).weight.fill_(_SAME)
    scores, offsets = (net.get_submodule(f"{name}_mbox_{kind}") for kind in ("conf", "loc"))
    scores.bias[1] = _SCORE
    scores.weight[1, list(WRONG), 1, 1] = -_SCORE / _TOLERANCE / 2
    pixels = side / (_HIGH - _LOW)
    for axis, channel in enumerate((RED, GREEN)):
        offsets.weight[axis, channel, 1, 1] = -pixels / (0.1 * 4 * stride)
        middle = stride / 2 - 0.5 + pixels * (_LOW + _HIGH) / 2
        offsets.bias[axis] = middle / (0.1 * 4 * stride)
    offsets.bias[2:] = math.log(side / (4 * stride)) / 0.2
