"""BiSeNet on a ResNet-18, the face parser: 19 classes of CelebAMask-HQ (Yu et al., 2018). Names as in its file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from models.arrays import U8
from models.musetalk.nets.uploading import to_device

CLASSES = 19
SIDE = 512
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class ConvBnRelu(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class BasicBlock(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        return F.relu(kept + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ResNet18(nn.Module):
    """(n, 3, h, w) -> features at 1/8, 1/16 and 1/32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(BasicBlock(width, width, 1), BasicBlock(width, width, 1))
        self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, 2), BasicBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(BasicBlock(2 * width, 4 * width, 2), BasicBlock(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(BasicBlock(4 * width, 8 * width, 2), BasicBlock(8 * width, 8 * width, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        eighth: Tensor = self.layer2(self.layer1(x))
        sixteenth: Tensor = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = ConvBnRelu(channels, out)
        self.conv_atten = nn.Conv2d(out, out, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))))


class ContextPath(nn.Module):
    """(n, 3, h, w) -> the trunk's features at 1/8, and context at 1/8 and 1/16."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resnet = ResNet18(width)
        self.arm16 = AttentionRefinement(4 * width, 2 * width)
        self.arm32 = AttentionRefinement(8 * width, 2 * width)
        self.conv_head32 = ConvBnRelu(2 * width, 2 * width)
        self.conv_head16 = ConvBnRelu(2 * width, 2 * width)
        self.conv_avg = ConvBnRelu(8 * width, 2 * width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth, sixteenth, last = self.resnet(x)
        deep = self.arm32(last) + self.conv_avg(last.mean((2, 3), keepdim=True))
        context16: Tensor = self.conv_head32(F.interpolate(deep, sixteenth.shape[2:]))
        context8: Tensor = self.conv_head16(F.interpolate(self.arm16(sixteenth) + context16, eighth.shape[2:]))
        return eighth, context8, context16


class FeatureFusion(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convblk = ConvBnRelu(channels, channels, 1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, trunk: Tensor, context: Tensor) -> Tensor:
        x: Tensor = self.convblk(torch.cat([trunk, context], 1))
        return x * torch.sigmoid(self.conv2(F.relu(self.conv1(x.mean((2, 3), keepdim=True))))) + x


def _classifier(channels: int, between: int) -> nn.Sequential:
    last = nn.Conv2d(between, CLASSES, 1, bias=False)
    return nn.Sequential(OrderedDict(conv=ConvBnRelu(channels, between), conv_out=last))


class BiSeNet(nn.Module):
    """(n, 3, h, w) RGB normalised by MEAN and STD -> logits (n, 19, h, w). `width` is 64 in the published weights.

    `conv_out16` and `conv_out32` are there for training and for their names in the file; nothing here runs them.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.cp = ContextPath(width)
        self.ffm = FeatureFusion(4 * width)
        self.conv_out = _classifier(4 * width, 4 * width)
        self.conv_out16 = _classifier(2 * width, width)
        self.conv_out32 = _classifier(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        trunk, context, _ = self.cp(x)
        logits = self.conv_out(self.ffm(trunk, context))
        return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=True)


def width_of(state: Mapping[str, Any]) -> int:
    """Return the `width` that a state dict was made with."""
    return int(state["cp.resnet.conv1.weight"].shape[0])


def network_input(crop: U8) -> Tensor:
    """Convert (s, s, 3) uint8 BGR -> (3, 512, 512) float32, on the CPU: resized as Pillow does it."""
    return normalise(torch.from_numpy(resize_crop(crop)[None]))[0]


def resize_crop(crop: U8) -> U8:
    """Return (s, s, 3) BGR as (512, 512, 3) RGB, resized as Pillow does it."""
    picture = Image.fromarray(np.ascontiguousarray(crop[..., ::-1])).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.array(picture)


def normalise(pictures: Tensor) -> Tensor:
    """Convert (n, 512, 512, 3) uint8 RGB -> (n, 3, 512, 512) float32, on the same device."""
    rgb = pictures.permute(0, 3, 1, 2).to(torch.float32) / 255
    return ((rgb - rgb.new_tensor(MEAN).view(3, 1, 1)) / rgb.new_tensor(STD).view(3, 1, 1)).contiguous()


@torch.inference_mode()
def class_maps(net: nn.Module, crops: Sequence[U8], *, batch: int = 8) -> U8:
    """Classify square BGR crops of any sizes -> (n, 512, 512) uint8. One byte a pixel leaves the device."""
    device = next(net.parameters()).device
    found = np.empty((len(crops), SIDE, SIDE), np.uint8)
    for first in range(0, len(crops), batch):
        pictures = to_device(np.stack([resize_crop(crop) for crop in crops[first : first + batch]]), device)
        found[first : first + batch] = net(normalise(pictures)).argmax(1).to(torch.uint8).cpu().numpy()
    return found


def class_map(net: nn.Module, crop: U8) -> U8:
    """Classify one square BGR crop -> (512, 512) uint8."""
    classes: U8 = class_maps(net, [crop])[0]
    return classes
