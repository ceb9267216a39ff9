"""The face networks: the names of the real files, and their cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models.musetalk.nets import bisenet, dwpose, s3fd
from models.musetalk.nets.bisenet import BiSeNet
from models.musetalk.nets.dwpose import DwPose
from models.musetalk.nets.s3fd import S3FD
from tests.models.musetalk.recipe import keys, named_shapes


@pytest.mark.parametrize(
    ("net", "file"),
    [(S3FD, "s3fd_619a316812"), (DwPose, "dwpose_rtmpose_l_384x288"), (BiSeNet, "bisenet_79999_iter")],
)
def test_names_and_shapes_are_those_of_the_published_files(net: type[nn.Module], file: str) -> None:
    """The published checkpoints load without a missing, a left over or a misshapen tensor."""
    with torch.device("meta"):
        assert named_shapes(net()) == keys(file)


@pytest.mark.parametrize("module", [s3fd, dwpose, bisenet])
def test_narrow_nets_tell_their_width(module: Any) -> None:
    """A smaller network of the same kind is rebuilt from its state dict."""
    net = {s3fd: S3FD, dwpose: DwPose, bisenet: BiSeNet}[module]
    with torch.device("meta"):
        assert module.width_of(net(width=4).state_dict()) == 4
        assert module.width_of(net().state_dict()) == 64
