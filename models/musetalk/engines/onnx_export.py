"""UNet and decoder as ONNX files with a fixed batch, and their stages. Needs the packages onnx and onnxscript."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.musetalk.inpainting.forms import form_networks
from models.musetalk.inpainting.modules import LATENT, Decode, contiguous_layout
from models.musetalk.nets.diffusion import AutoencoderKL, UNet2DConditionModel

STAGE = re.compile(r"(?:^|\.)(down_blocks\.\d+|up_blocks\.\d+|mid_block|conv_in|conv_out)\.")
FORM = "shuffled"
"""Of what is exported: its upsamplers are convolutions, so they can run in 8 bits, too."""


class DecodeImage(nn.Module):
    """What is exported of a Decode: (n, 4, h, w) -> (n, 3, 8h, 8w), both in its precision. Levels are made outside."""

    def __init__(self, decode: Decode) -> None:
        super().__init__()
        self.decode = decode

    def forward(self, latents: Tensor) -> Tensor:
        return self.decode.image(latents)


def export_networks(
    nets: tuple[UNet2DConditionModel, AutoencoderKL], batches: dict[str, int], windows: tuple[int, int], folder: Path
) -> None:
    """Write unet.onnx and decode.onnx of optimised networks, with their weights beside them.

    batches  frames at once, by the networks that are written
    windows  tokens of an audio window, and their width
    """
    predict, decode = form_networks(*nets, FORM, contiguous_layout)
    if "unet" in batches:
        latents, heard = torch.zeros(batches["unet"], 8, *LATENT[1:]), torch.zeros(batches["unet"], *windows)
        export_network(predict, {"latents": latents, "audio_windows": heard}, "latent", folder / "unet.onnx")
    if "decode" in batches:
        predicted = torch.zeros(batches["decode"], *LATENT, dtype=nets[1].dtype)
        export_network(DecodeImage(decode), {"latents": predicted}, "image", folder / "decode.onnx")


@torch.no_grad()
def export_network(net: nn.Module, given: dict[str, Tensor], output: str, path: Path) -> None:
    """Write a network in its precision to `path`, its weights to `path` + ".data".

    given    an input by name, on the CPU; its shape, and with it the batch, is that of the file
    """
    if any(parameter.is_cuda for parameter in net.parameters()):
        net = copy.deepcopy(net).cpu()
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
