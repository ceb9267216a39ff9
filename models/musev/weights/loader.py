"""The networks of MuseV, opened in the form that is there: mapped from the disk, strict in names and shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints.states import State, damaged_error, find_mismatch, move_tensor, read_state
from models.motion.prompts import check_tokenizer_files
from models.musev.nets.picture import PictureTokens
from models.musev.nets.unet import MotionUNet, ReferenceNet, Shape
from models.musev.weights.index import (
    InstalledPart,
    Part,
    Selection,
    find_part,
    missing_error,
    repair_hint,
)
from models.musev.weights.lcm import merge_lcm
from models.types import EngineError

PRESETS: Mapping[str, Mapping[str, bool]] = {
    "musev": {"input_motion": True, "still_frame": False, "reference": False},
    "musev_referencenet": {"input_motion": False, "still_frame": True, "reference": True},
}
FLAGS = {
    "need_transformer_in": "input_motion",
    "use_anivv1_cfg": "still_frame",
    "resnet_2d_skip_time_act": "still_frame",
    "keep_vision_condtion": "still_frame",
    "need_refer_emb": "reference",
    "ip_adapter_cross_attn": "reference",
}
"""Names in the configs of MuseV, and what they mean here; others have no effect on a clip of a photo."""
BLOCKS = 4
FAMILY = "StableDiffusionPipeline"
FAMILIES = {1024: "Stable Diffusion 2", 1280: "Stable Diffusion XL (refiner)", 2048: "Stable Diffusion XL"}
"""By the width of their words."""
USUAL_WORDS = 49_408
"""That a text encoder of CLIP knows, where its config has no number."""
LEFTOVERS = ("position_ids",)
"""Endings of tensors in old files that are no weights."""


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file. Raises EngineError weights_damaged where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged_error(name, f"is not JSON ({error})", repair_hint(name)) from error
    if not isinstance(found, dict):
        raise damaged_error(name, "is JSON, but not an object", repair_hint(name))
    return found


def get_installed(root: Path, selection: Selection, part: Part) -> InstalledPart:
    """Return the form of a part that is used. Raises EngineError weights_missing."""
    found = find_part(part, root)
    if found is None:
        raise missing_error(root, selection)
    return found


def read_shape(root: Path, selection: Selection) -> Shape:
    """Return what the networks of a variant look like. Raises EngineError weights_damaged for another variant's."""
    file, preset = selection.motion.config_file, PRESETS[selection.variant]
    config = read_json(root / file, file)
    other = [flag for flag, meaning in FLAGS.items() if flag in config and bool(config[flag]) != preset[meaning]]
    if other:
        text = f"is of another variant than {selection.variant} ({other[0]} is {config[other[0]]})"
        raise damaged_error(file, text, repair_hint(file))
    return shape_of(config, file, preset)


def shape_of(config: Mapping[str, Any], file: str, preset: Mapping[str, bool]) -> Shape:
    """Return the shape that a config describes. Raises EngineError weights_damaged where it describes none."""
    channels, words = config.get("block_out_channels"), config.get("cross_attention_dim")
    heads = config.get("num_attention_heads") or config.get("attention_head_dim") or 8
    heads = heads[0] if isinstance(heads, list) else heads
    given = [*channels, words, heads] if isinstance(channels, list) and len(channels) == BLOCKS else []
    numbers = [one for one in given if isinstance(one, int) and one > 0]
    if len(numbers) < BLOCKS + 2 or any(one % numbers[-1] for one in numbers[:BLOCKS]):
        text = f"describes no network (channels {channels}, words of {words}, {heads} heads)"
        raise damaged_error(file, text[:200], repair_hint(file))
    return Shape(tuple(numbers[:BLOCKS]), numbers[BLOCKS], numbers[-1], **preset)


def check_base(root: Path, selection: Selection, shape: Shape) -> None:
    """Raise EngineError bad_option for a base model that is not of the family of the motion weights."""
    index = root / selection.base / "model_index.json"
    kind = str(read_json(index, f"{selection.base}/model_index.json").get("_class_name", "")) if index.exists() else ""
    file = selection.base_unet.config_file
    config = read_json(root / file, file)
    words, channels = config.get("cross_attention_dim"), config.get("block_out_channels")
    if words == shape.words and channels == list(shape.channels) and kind in ("", FAMILY):
        file = selection.get_part("-words").config_file
        words = read_json(root / file, file).get("hidden_size")
        if words != shape.words:
            text = f"describes no text encoder of this base model (words of {str(words)[:40]}, not of {shape.words})"
            raise damaged_error(file, text, repair_hint(file))
        return
    family = FAMILIES.get(words) if isinstance(words, int) else None
    other = "" if kind == FAMILY else kind.removesuffix("Pipeline")
    said = family or other or f"a network with words of {words} and channels {channels}"[:200]
    message = f"the base model {selection.base} is {said}; MuseV needs Stable Diffusion 1.5 in the layout of diffusers"
    raise EngineError("bad_option", message, "leave out motion.base, or name a folder with a model of that family")


def read_part(found: InstalledPart) -> State:
    """Return the mapped tensors of a part, without leftovers. Raises EngineError weights_damaged, weights_unsafe."""
    state = read_state(found.path, found.file, repair_hint(found.file))
    return {name: tensor for name, tensor in state.items() if not name.endswith(LEFTOVERS)}


def check_fit(net: nn.Module, state: State, file: str) -> None:
    """Raise EngineError weights_damaged unless names and shapes are exactly those of the network."""
    if wrong := find_mismatch(net, state, extras=False):
        raise damaged_error(file, wrong + note_other(state), repair_hint(file))


def note_other(state: State) -> str:
    """Return what to add to a message where a file seems to be another network's; "" where that can't be told."""
    if "transformer_in.norm.weight" in state:
        return "; it seems to be the UNet of musev"
    if "first_refer_emb_attns.to_q.weight" in state:
        return "; it seems to be the UNet of musev_referencenet"
    if "time_embedding.linear_1.weight" in state:
        rest = "the ReferenceNet" if "conv_out.weight" not in state else "a UNet without motion"
        return "" if "frame_embedding.linear_1.weight" in state else f"; it seems to be {rest}"
    return ""


def build_empty(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a network on the meta device, where a tensor is a shape and takes no memory."""
    with torch.device("meta"):
        return make().eval().requires_grad_(False)


def fill(net: Any, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> Any:
    net.load_state_dict({name: move_tensor(tensor, device, dtype) for name, tensor in state.items()}, assign=True)
    return net


def load_unet(root: Path, selection: Selection, device: torch.device, dtype: torch.dtype) -> MotionUNet:
    """Return the UNet: the motion weights, and over their drawing part that of the base model.

    Both files have to fit exactly: a base model lacks none of the 686 tensors that it has in Stable Diffusion 1.5.
    """
    shape = read_shape(root, selection)
    check_base(root, selection, shape)
    motion = get_installed(root, selection, selection.motion)
    base = get_installed(root, selection, selection.base_unet)
    net, state, drawing = build_empty(lambda: MotionUNet(shape)), read_part(motion), read_part(base)
    check_fit(net, state, motion.file)
    check_fit(build_base(shape), drawing, base.file)
    if selection.lcm:
        drawing = {**drawing, **dict(merge_lcm(root, drawing, device, dtype))}
    loaded: MotionUNet = fill(net, {**state, **drawing}, device, dtype)
    return loaded


@lru_cache(maxsize=4)
def build_blueprint(kind: Callable[[Shape], nn.Module], shape: Shape) -> nn.Module:
    """Return a network without memory, which files are compared with; it is never filled."""
    return build_empty(lambda: kind(shape))


def build_base(shape: Shape) -> nn.Module:
    """Return the UNet of Stable Diffusion inside MuseV's, without memory; it is never filled."""
    return build_blueprint(make_base, shape)


def make_base(shape: Shape) -> nn.Module:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(**shape.spatial_config)


def load_reference(root: Path, selection: Selection, device: torch.device, dtype: torch.dtype) -> ReferenceNet:
    shape = read_shape(root, selection)
    found = get_installed(root, selection, selection.get_part("-referencenet"))
    net, state = build_empty(lambda: ReferenceNet(shape)), read_part(found)
    check_fit(net, state, found.file)
    loaded: ReferenceNet = fill(net, state, device, dtype)
    return loaded


def load_picture_tokens(
    root: Path, selection: Selection, device: torch.device, dtype: torch.dtype, embedding: int = 0
) -> PictureTokens:
    """Return what makes tokens of an embedding with so many numbers; 0: as many as the file says."""
    shape = read_shape(root, selection)
    found = get_installed(root, selection, selection.get_part("-picture"))
    state = {name.removeprefix("image_proj."): tensor for name, tensor in read_part(found).items()}
    width = state["proj.weight"].shape[1] if "proj.weight" in state else 0
    net = build_empty(lambda: PictureTokens(embedding or width, shape.words))
    check_fit(net, state, found.file)
    loaded: PictureTokens = fill(net, state, device, dtype)
    return loaded


def load_words(root: Path, selection: Selection, device: torch.device, dtype: torch.dtype) -> Any:
    """Return the text encoder of the base model."""
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    found = get_installed(root, selection, selection.get_part("-words"))
    return _load_clip(found, CLIPTextModel, CLIPTextConfig, device, dtype)


def load_picture_encoder(root: Path, selection: Selection, device: torch.device, dtype: torch.dtype) -> Any:
    """Return CLIP's encoder of pictures."""
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

    found = get_installed(root, selection, selection.get_part("picture-encoder"))
    return _load_clip(found, CLIPVisionModelWithProjection, CLIPVisionConfig, device, dtype)


def _load_clip(found: InstalledPart, model: Any, config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()
    values, usual = read_json(found.config_path, found.part.config_file), config()
    for key, value in values.items():
        if not is_like(value, getattr(usual, key, None)):
            text = f"describes no such network ({key} is {str(value)[:40]})"
            raise damaged_error(found.part.config_file, text, repair_hint(found.part.config_file))
    try:
        net, report = model.from_pretrained(
            None, config=config(**values), state_dict=read_part(found), output_loading_info=True, dtype=dtype
        )
    except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError) as error:
        text = f"fits no such network ({str(error)[:300]})"
        raise damaged_error(found.file, text, repair_hint(found.file)) from error
    wrong = [*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])]
    if wrong:
        text = f"lacks {len(wrong)} tensors of its network, or has them in another shape ({wrong[0]} first)"
        raise damaged_error(found.file, text, repair_hint(found.file))
    return net.eval().requires_grad_(False).to(device)


def is_like(value: Any, usual: Any) -> bool:
    """Whether a value of a config is of the kind that is usual; the library has an error of its own where it isn't."""
    if value is None or isinstance(usual, bool) or not isinstance(usual, int | float | str):
        return True
    kinds = (int, float) if isinstance(usual, float) else type(usual)
    return isinstance(value, kinds) and not isinstance(value, bool)


def load_tokenizer(root: Path, selection: Selection) -> Any:
    """Return the tokenizer of the base model. Loads no network."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    folder = root / selection.base / "tokenizer"
    file = selection.get_part("-words").config_file
    most = read_json(root / file, file).get("vocab_size", USUAL_WORDS)
    try:
        check_tokenizer_files(folder)
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        if len(tokenizer) > most:
            raise ValueError(f"it has {len(tokenizer)} words, the text encoder {most}")
        return tokenizer
    except (OSError, ValueError, TypeError, KeyError) as error:
        name = f"{selection.base}/tokenizer"
        raise damaged_error(name, f"holds no tokenizer ({error})", repair_hint(f"{name}/vocab.json")) from error


def check_part(found: InstalledPart, selection: Selection) -> str:
    """Return what is in a file, after names and shapes were compared with its network. Raises EngineError."""
    state, name = read_part(found), found.part.name
    if name.endswith(("-words", "picture-encoder")):
        load = load_words if name.endswith("-words") else load_picture_encoder
        load(found.root, selection, torch.device("cpu"), torch.float32)
    elif name.endswith("-picture"):
        load_picture_tokens(found.root, selection, torch.device("cpu"), torch.float32)
    else:
        check_fit(build_net(found, selection), state, found.file)
    millions = sum(tensor.numel() for tensor in state.values()) / 1e6
    return f"{len(state)} tensors of the right shapes, {millions:,.1f} M numbers"


def build_net(found: InstalledPart, selection: Selection) -> nn.Module:
    """Return the empty UNet, ReferenceNet or base UNet that a part belongs to."""
    if found.part == selection.base_unet:
        values = read_json(found.config_path, found.part.config_file)
        return build_base(shape_of(values, found.part.config_file, PRESETS[selection.variant]))
    shape = read_shape(found.root, selection)
    return build_blueprint(ReferenceNet if found.part.name.endswith("-referencenet") else MotionUNet, shape)
