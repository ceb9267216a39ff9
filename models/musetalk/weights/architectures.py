"""The six networks as empty shells: built on the meta device, where a tensor is a shape and takes no memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.checkpoints.states import State
from models.musetalk.nets import bisenet, dwpose, s3fd
from models.musetalk.nets.diffusion import AutoencoderKL, UNet2DConditionModel
from models.musetalk.nets.whisper import Encoder, MelSpectrogram
from models.musetalk.weights.checkpoint import damaged_error
from models.musetalk.weights.index import InstalledPart

ENCODER = "model.encoder."
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
Build = Callable[[Any, Mapping[str, Any]], nn.Module]


def build_empty(found: InstalledPart, state: State) -> nn.Module:
    """Return the network that `state` belongs to, on the meta device, in eval mode, without gradients.

    `state` gives the widths of the face networks; the others have a config. Raises EngineError weights_damaged
    for a config that makes no network.
    """
    name = found.variant.configs[0] if found.variant.configs else found.variant.weights
    config = read_config(found.configs[0], name) if found.configs else {}
    try:
        with torch.device("meta"), NoFirstValues():
            net = BUILDERS[found.part.name](config, state)
    except (TypeError, ValueError, KeyError, LookupError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        seems = note_other_network(found.part.name, state)
        raise damaged_error(name, f"describes no network of this kind ({error}){seems}") from error
    return net.eval().requires_grad_(False)


class NoFirstValues(TorchFunctionMode):
    """Modules that are built leave out what their tensors begin with.

    On the meta device the normal distribution would import torch's compiler.
    """

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_first_value = getattr(func, "__module__", "") == nn.init.__name__
        return kwargs["tensor"] if is_first_value else func(*args, **kwargs)


def read_config(path: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file. Raises EngineError weights_damaged where there is none."""
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows programs write a mark before it
    except (ValueError, RecursionError) as error:
        raise damaged_error(name, f"is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise damaged_error(name, "is JSON, but not an object")
    return config


def read_feature_extractor(found: InstalledPart) -> MelSpectrogram:
    """Return what turns samples into mel frames, from the config beside the Whisper weights."""
    name = found.variant.configs[1]
    config = read_config(found.configs[1], name)
    try:
        return MelSpectrogram(**config)
    except (TypeError, ValueError) as error:
        raise damaged_error(name, f"describes no feature extractor ({error})") from error


def build_unet(config: Any, _: Mapping[str, Any]) -> nn.Module:
    return UNet2DConditionModel(**config)


def build_vae(config: Any, _: Mapping[str, Any]) -> nn.Module:
    return AutoencoderKL(**config)


def build_taesd(config: Any, _: Mapping[str, Any]) -> nn.Module:
    autoencoder = import_module("diffusers.models.autoencoders.autoencoder_tiny")  # only drafts need it
    return autoencoder.AutoencoderTiny(**config)


def build_whisper(config: Any, _: Mapping[str, Any]) -> nn.Module:
    return Encoder(**config)


BUILDERS: dict[str, Build] = {
    "unet-v15": build_unet,
    "unet-v1": build_unet,
    "vae": build_vae,
    "taesd": build_taesd,
    "whisper": build_whisper,
    "pose": lambda _, state: dwpose.DwPose(dwpose.width_of(state)),
    "bisenet": lambda _, state: bisenet.BiSeNet(bisenet.width_of(state)),
    "s3fd": lambda _, state: s3fd.S3FD(s3fd.width_of(state)),
}


def modern_vae_name(name: str) -> str:
    """Return today's name of a layer: the published VAE has those of diffusers before 0.12."""
    parts = name.split(".")
    if "attentions" not in parts or len(parts) < 2:
        return name
    return ".".join([*parts[:-2], OLD_NAMES.get(parts[-2], parts[-2]), parts[-1]])


def modern_vae_tensor(name: str, tensor: Tensor) -> Tensor:
    """Return a matrix (out, in) for the 1x1 convolution (out, in, 1, 1) that it was before that."""
    old = name.split(".")[-2:-1]
    return tensor[:, :, 0, 0] if old and old[0] in OLD_NAMES and tensor.dim() == 4 else tensor


def rename_keys(part: str, state: State) -> State:
    """Return the state with the names that the network has, without the other half of Whisper."""
    if part == "vae":
        return {modern_vae_name(name): modern_vae_tensor(name, tensor) for name, tensor in state.items()}
    if part == "whisper" and any(name.startswith(ENCODER) for name in state):
        return {name.removeprefix(ENCODER): tensor for name, tensor in state.items() if name.startswith(ENCODER)}
    return state


SEEMS = {
    "unet-v15": "MuseTalk's UNet",
    "unet-v1": "MuseTalk's UNet",
    "vae": "the VAE (sd-vae)",
    "taesd": "TAESD, the small decoder of drafts",
    "whisper": "Whisper (whisper/pytorch_model.bin)",
    "pose": "DWPose (dwpose/dw-ll_ucoco_384.pth)",
    "bisenet": "the face parser (face-parse-bisent/79999_iter.pth)",
    "s3fd": "the face detector (s3fd/s3fd-619a316812.pth)",
}
MARKS = {
    "time_embedding.linear_1.weight": SEEMS["unet-v15"],
    "post_quant_conv.weight": SEEMS["vae"],
    "decoder.layers.2.conv.0.weight": SEEMS["taesd"],
    "decoder.token_embedding.weight": "OpenAI's own form of Whisper (whisper/tiny.pt of old releases)",
    "encoder.layers.0.self_attn.k_proj.weight": SEEMS["whisper"],
    "layers.0.self_attn.k_proj.weight": SEEMS["whisper"],
    "head.final_layer.weight": SEEMS["pose"],
    "cp.resnet.conv1.weight": SEEMS["bisenet"],
    "conv3_3_norm.weight": SEEMS["s3fd"],
    "fc.weight": "ResNet-18 of torchvision, which nothing here needs",
    "backbone.backbone.dark2.0.conv.weight": "YOLOX, which nothing here needs",
    "audio_encoder.conv_in.weight": "SyncNet, which only training needs",
}
"""Of each network a tensor that no other has, as its file names it."""


def recognise_network(state: Mapping[str, Any]) -> str:
    """Return which network a state dict seems to be, from the names of its tensors; "" where they tell nothing."""
    names = {name.removeprefix("model.") for name in state}
    return next((network for mark, network in MARKS.items() if mark in names), "")


def note_other_network(part: str, state: Mapping[str, Any]) -> str:
    """Return what to add to a message where the weights of `part` seem to be another file's."""
    other = recognise_network(state)
    return f"; it seems to be {other}" if other and other != SEEMS[part] else ""
