"""UNet and decoder as ONNX files with a fixed batch, and their stages. Needs the packages onnx and onnxscript."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.musetalk.inpainting.modules import Decode

STAGE = re.compile(r"(?:^|\.)(down_blocks\.\d+|up_blocks\.\d+|mid_block|conv_in|conv_out)\.")


class DecodeImage(nn.Module):
    """What is exported of a Decode: (n, 4, h, w) float32 -> (n, 3, 8h, 8w) float32. Levels are made outside of it."""

    def __init__(self, decode: Decode) -> None:
        super().__init__()
        self.decode = decode

    def forward(self, latents: Tensor) -> Tensor:
        return self.decode.image(latents)


@torch.no_grad()
def export_network(net: nn.Module, given: dict[str, Tensor], output: str, path: Path) -> None:
    """Write a network in float32 to `path`, its weights to `path` + ".data".

    given    an input by name; its shape, and with it the batch, is that of the file
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            net.eval(),
            tuple(given.values()),
            str(path),
            input_names=[*given],
            output_names=[output],
            dynamo=True,
            external_data=True,
            verbose=False,
        )


def list_stages(path: Path) -> dict[str, list[str]]:
    """Return the names of the convolutions of each stage of an exported network, in the order in which they run."""
    import onnx

    stages: dict[str, list[str]] = {}
    graph: Any = onnx.load(str(path), load_external_data=False).graph
    for node in graph.node:
        if node.op_type == "Conv":
            found = STAGE.search(node.input[1])
            stages.setdefault(found[1] if found else "other", []).append(node.name)
    return stages
