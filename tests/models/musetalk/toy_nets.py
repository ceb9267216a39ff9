"""Small face networks, of the published kinds, that see a red disc as a face: for tests that need a face to be found.

Their state dicts have the published names, so they can be saved as checkpoints and be opened as users' files are.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.musetalk.nets import dwpose, s3fd
from models.musetalk.nets.bisenet import BiSeNet
from models.musetalk.nets.dwpose import DwPose
from models.musetalk.nets.s3fd import S3FD

RED = (40, 40, 255)
_REDNESS = 175.0  # of RED: R - G - B. Greys have none.
_SKIN = 1


def disc_frame(
    width: int, height: int, *discs: tuple[float, float, float], seed: int = 5, red: tuple[int, int, int] = RED
) -> np.ndarray:
    """A grey, patterned BGR picture with red discs (middle x, y, diameter)."""
    random = np.random.default_rng(seed)
    grey = cv2.resize(random.uniform(60, 200, (9, 16)).astype(np.float32), (width, height))
    frame = np.repeat(grey[..., None], 3, 2).astype(np.uint8)
    for x, y, diameter in discs:
        centre = (round(x * 16), round(y * 16))
        cv2.circle(frame, centre, round(diameter * 8), red, -1, lineType=cv2.LINE_AA, shift=4)
    return frame


def emptied(net: Any) -> Any:
    """All tensors 0, but normalisations that change nothing."""
    for module in net.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            tensor.data.fill_(name == "running_var" or (isinstance(module, nn.BatchNorm2d) and name == "weight"))
    return net.eval().requires_grad_(False)


def toy_s3fd() -> Any:
    """A box of side 128 on each disc of 100 to 130 px, on a grid of 32 px."""
    net: Any = emptied(S3FD(1))
    net.conv1_1.weight[0, :, 1, 1] = torch.tensor([1.0, -1.0, -1.0]) / _REDNESS
    red, green, blue = s3fd.MEAN_SUBTRACTED
    net.conv1_1.bias[0] = (red - green - blue) / _REDNESS
    for name, layer in net.named_children():
        if name.endswith("conf"):
            layer.bias[-1] = -20.0
        elif name.startswith("conv") and name[4] in "12345" and len(name) == 7 and name != "conv1_1":
            layer.weight[0, 0, 1, 1] = 1.0
    net.fc6.weight[0, 0] = 1 / 9
    net.fc7.weight[0, 0] = 1.0
    net.fc7_mbox_conf.weight[1, 0] = 40 / 9
    net.fc7_mbox_conf.bias[1] = -40 * 0.65
    net.fc7_mbox_loc.bias[:2] = -64 / (0.1 * 128)  # fc6 shifts its picture by two cells of 32 pixels
    return net


def toy_dwpose() -> Any:
    """The face's points about the middle of what is red, up to 32 px of the net's input away; nothing without red."""
    net = emptied(DwPose(2))
    _pass_redness_on(net.backbone)
    for point, (across, down) in enumerate(face_cells().tolist(), 23):
        net.head.final_layer.weight[point, 0, 3 - down, 3 - across] = 1.0
    net.head.mlp[0].g.fill_(1.0)
    net.head.gau.res_scale.scale.fill_(1.0)
    row, column = (torch.arange(108) // 9) * 64.0, (torch.arange(108) % 9) * 64.0
    net.head.mlp[1].weight[:3] = torch.stack([torch.ones(108), column, row]) / 1000
    _peak_at_mean(net.head.cls_x.weight, 1)
    _peak_at_mean(net.head.cls_y.weight, 2)
    return net


def face_cells() -> np.ndarray:
    """(68, 2) how many cells of 32 px each point lies right of the middle and below it: a box of two by two cells."""
    cells = np.zeros((68, 2), np.int64)
    cells[:6], cells[11:17], cells[6:11] = (-1, 0), (1, 0), (0, 1)
    cells[17:28] = (0, -1)
    return cells


def _pass_redness_on(backbone: Any) -> None:
    mean, std = torch.tensor(dwpose.MEAN), torch.tensor(dwpose.STD)
    signs = torch.tensor([1.0, -1.0, -1.0])
    stem = backbone.stem
    stem[0].conv.weight[0, :, 1, 1] = signs * std * (20 / _REDNESS)
    stem[0].bn.bias[0] = (signs * mean).sum() * (20 / _REDNESS)
    for layer in (stem[1], stem[2], *(getattr(backbone, f"stage{n}")[0] for n in (1, 2, 3, 4))):
        layer.conv.weight[0, 0, 1, 1] = 1.0
    backbone.stage4[1].conv1.conv.weight[0, 0] = 1.0
    backbone.stage4[1].conv2.conv.weight[0, 0] = 1.0
    for stage in (backbone.stage1, backbone.stage2, backbone.stage3, backbone.stage4):
        csp = stage[-1]
        csp.short_conv.conv.weight[0, 0] = 1.0
        csp.final_conv.conv.weight[0, csp.short_conv.conv.weight.shape[0]] = 1.0
        csp.attention.fc.bias.fill_(3.0)


def _peak_at_mean(weight: Tensor, moment: int) -> None:
    """Rows of a layer that is strongest at bin sum(m x) / sum(m), told sum(m) and, as number `moment`, sum(m x)."""
    bins = torch.arange(len(weight), dtype=torch.float32)
    weight[:, 0] = 1.0 - bins**2 / 768**2
    weight[:, moment] = 2 * bins / 768**2


def toy_bisenet() -> Any:
    """Skin everywhere."""
    net = emptied(BiSeNet(2))
    net.conv_out.conv.bn.bias.fill_(1.0)
    net.conv_out.conv_out.weight[_SKIN] = 1.0
    return net
