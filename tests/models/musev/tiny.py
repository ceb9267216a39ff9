"""A models folder with tiny networks of MuseV, whose weights are decided by their names."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPVisionModelWithProjection

from models.musev.nets.picture import PictureTokens
from models.musev.nets.unet import MotionUNet, ReferenceNet, Shape
from models.musev.prompts import CALM_PROMPT, NEGATIVE_PROMPT
from models.musev.weights.index import BASES, DEFAULT_BASE, VARIANTS
from models.musev.weights.loader import PRESETS
from tests.models.musetalk.recipe import fill

DATA = Path(__file__).parents[2] / "data" / "musev"
WORDS, EMBEDDING = 24, 16
CHANNELS, SMALL = (32, 64, 64, 64), (32, 32, 32, 32)
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "linspace",
}
VAE: dict[str, Any] = {
    "block_out_channels": [32, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "scaling_factor": 0.18215,
}
TEXT = {
    "vocab_size": 520,
    "hidden_size": WORDS,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": WORDS,
    "bos_token_id": 518,
    "eos_token_id": 519,
    "pad_token_id": 519,
    "hidden_act": "quick_gelu",
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": EMBEDDING,
    "patch_size": 56,
}


def shape_of(variant: str, channels: tuple[int, ...] = CHANNELS) -> Shape:
    return Shape(channels, WORDS, 4, **PRESETS[variant])


def fill_net(net: nn.Module) -> Any:
    """Give a network its weights: motion that goes backwards, and a reference that is not chaotic."""
    fill(net)
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            if name.endswith("temporal_weight"):
                tensor.mul_(-0.6)
            elif "refer_emb_attns" in name and name.endswith(("to_q.weight", "to_k.weight")):
                tensor.mul_(0.05)
    return net


def make_text_encoder(words: int = 520) -> Any:
    return fill_net(CLIPTextModel(CLIPTextConfig(**{**TEXT, "vocab_size": words})))  # type: ignore[arg-type]


def write_tokenizer(folder: Path) -> int:
    """Write a tokenizer that knows the words of the presets, so that they are short; return how many tokens it has."""
    shutil.copytree(DATA / "tokenizer", folder, dirs_exist_ok=True)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    merges = (folder / "merges.txt").read_text().splitlines()
    for word in sorted(set(re.findall(r"[a-z]+", f"{CALM_PROMPT} {NEGATIVE_PROMPT}"))):
        left = word[0]
        for char in [*word[1:-1], f"{word[-1]}</w>"][: len(word) - 1]:
            if f"{left} {char}" not in merges:
                merges.append(f"{left} {char}")
            left += char
            vocabulary.setdefault(left, len(vocabulary))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    return len(vocabulary)


def make_picture_encoder() -> Any:
    return fill_net(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)))  # type: ignore[arg-type]


def make_vae() -> Any:
    return fill_net(AutoencoderKL(**VAE))


def config_of(shape: Shape) -> dict[str, Any]:
    """Return the config of a motion UNet as MuseV spells it."""
    return {
        "block_out_channels": list(shape.channels),
        "cross_attention_dim": shape.words,
        "attention_head_dim": shape.heads,
        "need_transformer_in": shape.input_motion,
        "use_anivv1_cfg": shape.still_frame,
        "resnet_2d_skip_time_act": shape.still_frame,
        "keep_vision_condtion": shape.still_frame,
        "need_refer_emb": shape.reference,
        "ip_adapter_cross_attn": shape.reference,
        "need_adain_temporal_cond": True,
    }


def write_part(folder: Path, name: str, state: dict[str, Tensor], config: dict[str, Any] | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / name)
    else:
        torch.save(state, folder / name)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))


def lay_out_base(folder: Path, shape: Shape, scheduler: dict[str, Any] = SCHEDULER) -> None:
    """Write a base model in the layout of diffusers."""
    drawing = fill(UNet2DConditionModel(**shape.spatial_config), salt="base")
    config = {key: drawing.config[key] for key in ("block_out_channels", "cross_attention_dim", "attention_head_dim")}
    write_part(folder / "unet", "diffusion_pytorch_model.safetensors", drawing.state_dict(), config)
    words = write_tokenizer(folder / "tokenizer")
    encoder = make_text_encoder(words).state_dict()
    write_part(folder / "text_encoder", "model.safetensors", encoder, {**TEXT, "vocab_size": words})
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


def lay_out(root: Path, variants: tuple[str, ...] = VARIANTS, channels: tuple[int, ...] = SMALL) -> Path:
    """Write a complete models folder, laid out as the hub's, and return it."""
    for variant in variants:
        shape, motion = shape_of(variant, channels), root / "motion" / variant
        unet = fill_net(MotionUNet(shape))
        write_part(motion / "unet", "diffusion_pytorch_model.bin", unet.state_dict(), config_of(shape))
        if shape.reference:
            reference = fill_net(ReferenceNet(shape)).state_dict()
            write_part(motion / "referencenet", "diffusion_pytorch_model.bin", reference, {})
            tokens = fill_net(PictureTokens(EMBEDDING, WORDS)).state_dict()
            torch.save({"image_proj": tokens}, motion / "ip_adapter_image_proj.bin")
            encoder = make_picture_encoder().state_dict()
            write_part(root / "IP-Adapter/models/image_encoder", "model.safetensors", encoder, VISION)
    lay_out_base(root / BASES / DEFAULT_BASE, shape_of(variants[0], channels))
    write_part(root / "sd-vae", "diffusion_pytorch_model.bin", make_vae().state_dict(), VAE)
    return root
