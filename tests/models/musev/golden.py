"""What networks and loop have to compute: recorded with weights decided by names, or published with their weights.

The published vectors were made by the original program; they are large, and in the folder that MUSEDROP_MUSEV_GOLDEN
names. The recorded ones were made by `python -m tests.models.musev.golden` when the published
ones were met, and stand in tests/data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from models.checkpoints.states import read_state
from models.musev import denoising, networks, prompts
from models.musev.nets.picture import PictureTokens
from models.musev.nets.unet import Conditions, MotionUNet, ReferenceNet
from models.musev.recipe import Recipe, Tuning
from models.musev.schedule import Schedule
from tests.models.musetalk.recipe import uniform
from tests.models.musev import tiny

PUBLISHED = Path(os.environ.get("MUSEDROP_MUSEV_GOLDEN", "/nonexistent"))
RECORDED = tiny.DATA / "golden.npz"
TEXTS = "(((several))) (worst quality:2), [low]", "(closed lips:1.3), a ((calm)) [one], " + "(eye blinks:1.1), " * 6
"""The negative prompt, and the prompt, which needs two chunks."""
SOURCES = ("recorded", "published") if (PUBLISHED / "unet_outputs.safetensors").is_file() else ("recorded",)
LOOPS = {"musev": 20, "musev_referencenet": 12}
"""Variant -> frames of the loop that is compared."""
TOLERANCES = {"unet": 2e-4, "words": 1e-4, "init": 0.0, "step": 5e-3, "video": 1e-4, "image": 1e-4, "map": 2e-4}


@dataclass
class Golden:
    """The inputs, networks and expected outputs of one source."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    texts: tuple[str, str]
    scheduler: dict[str, Any]
    vae: Any
    words: Any
    tokenizer: Any
    tokens: Any
    reference: ReferenceNet
    unets: dict[str, MotionUNet]
    loop_unets: dict[str, MotionUNet] = field(default_factory=dict)

    def recipe(self, variant: str, frames: int, steps: int = 3) -> Recipe:
        given = self.inputs["picture"]
        height, width = given.shape[-2:]
        tuning = Tuning(motion_speed=8.0)
        return Recipe(
            variant,
            "",
            self.texts[1],
            self.texts[0],
            123,
            width,
            height,
            frames + 1,
            steps,
            3.5,
            self.scheduler,
            "",
            tuning,
        )


@cache
def open_golden(source: str) -> Golden:
    return open_published() if source == "published" else open_recorded()


def open_recorded() -> Golden:
    unets = {variant: tiny.fill_net(MotionUNet(tiny.shape_of(variant))) for variant in LOOPS}
    inputs = {
        "sample": (2, 4, 6, 16, 12),
        "text": (2, 11, tiny.WORDS),
        "ip": (2, 4, tiny.WORDS),
        "ref_latent": (2, 4, 16, 12),
        "picture": (1, 3, 128, 96),
        "reference": (1, 3, 128, 96),
        "embedding": (1, tiny.EMBEDDING),
    }
    numbers = {name: torch.from_numpy(uniform(name, shape, 1.0, "input")) for name, shape in inputs.items()}
    outputs = {}
    if RECORDED.is_file():
        with np.load(RECORDED) as stored:
            outputs = {name: torch.from_numpy(stored[name]) for name in stored.files}
    return Golden(
        {**numbers, "timestep": torch.tensor(500.0)},
        outputs,
        TEXTS,
        tiny.SCHEDULER,
        tiny.make_vae(),
        tiny.make_text_encoder(),
        CLIPTokenizer.from_pretrained(str(tiny.DATA / "tokenizer")),
        tiny.fill_net(PictureTokens(tiny.EMBEDDING, tiny.WORDS)),
        tiny.fill_net(ReferenceNet(tiny.shape_of("musev_referencenet"))),
        unets,
        unets,
    )


def open_published() -> Golden:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    loop = PUBLISHED / "loop"
    unets, loop_unets = {}, {}
    for variant in LOOPS:
        state = load_file(PUBLISHED / f"{variant}_weights.safetensors")
        unets[variant] = load_net(MotionUNet(tiny.shape_of(variant)), state)
        quiet = {name: one * 0.02 if is_reference_key(name) else one for name, one in state.items()}
        loop_unets[variant] = load_net(MotionUNet(tiny.shape_of(variant)), quiet)
    meta, given = json.loads((loop / "meta.json").read_text()), load_file(loop / "inputs.safetensors")
    words = CLIPTextModel(CLIPTextConfig.from_pretrained(loop / "text_encoder"))
    state = load_file(loop / "text_encoder" / "model.safetensors")
    words = load_net(words, {name.removeprefix("text_model."): one for name, one in state.items()})
    vae = AutoencoderKL.from_config(json.loads((loop / "vae" / "config.json").read_text()))
    tokens = read_state(loop / "ip_adapter_image_proj.bin", "ip_adapter_image_proj.bin", "")
    return Golden(
        load_file(PUBLISHED / "inputs.safetensors")
        | {
            "picture": given["condition_image"][:, :, 0] / 127.5 - 1,
            "reference": given["refer_image"][:, :, 0] / 127.5 - 1,
            "embedding": given["clip_embed"],
        },
        read_published_outputs(),
        (meta["negative_prompt"], meta["prompt"]),
        json.loads((loop / "scheduler" / "scheduler_config.json").read_text()),
        load_net(vae, load_file(loop / "vae" / "diffusion_pytorch_model.safetensors")),
        words,
        CLIPTokenizer.from_pretrained(str(loop / "tokenizer")),
        load_net(PictureTokens(tiny.EMBEDDING, tiny.WORDS), tokens),
        load_net(
            ReferenceNet(tiny.shape_of("musev_referencenet")), load_file(PUBLISHED / "referencenet_weights.safetensors")
        ),
        unets,
        loop_unets,
    )


def read_published_outputs() -> dict[str, Tensor]:
    """Return the outputs by the names that `run_unet`, `run_reference` and `run_loop` give them."""
    maps = load_file(PUBLISHED / "referencenet_outputs.safetensors")
    outputs = {f"unet {name}": one for name, one in load_file(PUBLISHED / "unet_outputs.safetensors").items()}
    outputs |= {f"map {n}": maps[f"down_{n}" if n < 12 else "mid"][:, :, 0] for n in range(13)}
    renamed = {"prompt_embeds": "words", "ip": "image", "ref0": "map0"}
    for name, one in load_file(PUBLISHED / "loop" / "outputs.safetensors").items():
        case, _, what = name.partition(".")
        variant, frames = case.rsplit("_T", 1)
        taken = one[:, :, 0] if what == "ref0" else one[:, :, ::6] if what == "video" else one
        outputs[f"{name_loop(variant, int(frames))} {renamed.get(what, what)}"] = taken
    return outputs


def name_loop(variant: str, frames: int) -> str:
    """Return how a loop begins the names of what it makes."""
    return variant if LOOPS[variant] == frames else f"{variant}-{frames}"


def is_reference_key(name: str) -> bool:
    return "refer_emb_attns" in name and ("to_q" in name or "to_k" in name)


def load_net(net: Any, state: Mapping[str, Tensor]) -> Any:
    net.load_state_dict(dict(state))
    return net.eval().requires_grad_(False)


@torch.inference_mode()
def run_unet(golden: Golden, name: str, motion_speed: float = 8.0) -> dict[str, Tensor]:
    """Return the noise that a UNet sees: "musev", "musev_referencenet", or without maps "musev_referencenet_noref"."""
    given = golden.inputs
    maps: list[Tensor] = []
    if name == "musev_referencenet":
        maps = [golden.outputs[f"map {number}"] for number in range(13)]
    variant = name.removesuffix("_noref")
    image = given["ip"] if variant != "musev" else None
    conditions = Conditions(given["text"], maps, image, motion_speed=motion_speed)
    return {f"unet {name}": golden.unets[variant].predict(given["sample"], given["timestep"], conditions)}


@torch.inference_mode()
def run_reference(golden: Golden) -> dict[str, Tensor]:
    maps = golden.reference.read_maps(golden.inputs["ref_latent"], golden.inputs["ip"])
    return {f"map {number}": one for number, one in enumerate(maps)}


@torch.inference_mode()
def run_loop(
    golden: Golden, variant: str, steps: int = 3, *, frames: int = 0, video: bool = False
) -> dict[str, Tensor]:
    """Return what a loop makes on its way: words, image, first map, noise, and the latents after each step.

    `frames`: 0 for those of `LOOPS`.
    """
    frames = frames or LOOPS[variant]
    recipe, schedule = golden.recipe(variant, frames), Schedule(golden.scheduler, 3)
    given = networks.encode_picture(golden.vae, golden.inputs["picture"])
    texts = (recipe.negative_prompt, recipe.prompt)
    tokens = [prompts.tokenize_prompt(text, golden.tokenizer) for text in texts]
    encoded = denoising.Encoded(prompts.encode_prompts(tokens, golden.tokenizer, golden.words))
    found = {"words": encoded.words}
    if variant != "musev":
        image = networks.encode_image(golden.tokens, golden.inputs["embedding"])
        reference = networks.encode_picture(golden.vae, golden.inputs["reference"])
        maps = networks.read_maps(golden.reference, reference, image)
        encoded = denoising.Encoded(encoded.words, image, maps)
        found |= {"image": image, "map0": maps[0]}
    state, unet = denoising.begin_shot(recipe, schedule, given), golden.loop_unets[variant]
    found["init"] = state.latents
    for step in range(steps):
        units = range(recipe.units)
        noise = {unit: denoising.predict_unit(unet, recipe, schedule, step, state, encoded, unit) for unit in units}
        state = denoising.advance_shot(recipe, schedule, step, state, noise)
        found[f"step{step}"] = state.latents
    if video:
        found["video"] = decode_video(golden, torch.cat([given, state.latents], dim=2))
    return {f"{name_loop(variant, frames)} {name}": one for name, one in found.items()}


def decode_video(golden: Golden, latents: Tensor) -> Tensor:
    """Return every sixth frame, 0 to 1."""
    frames = [golden.vae.decode(one[:, :, 0] / 0.18215).sample for one in latents[:, :, ::6].split(1, dim=2)]
    return (torch.stack(frames, dim=2) / 2 + 0.5).clamp(0, 1)


def find_misses(golden: Golden, found: Mapping[str, Tensor]) -> dict[str, float]:
    """Return what is not as it should be, and by how much."""
    misses = {}
    for name, one in found.items():
        kind = next(kind for kind in TOLERANCES if name.rpartition(" ")[2].startswith(kind) or name.startswith(kind))
        error = float((one - golden.outputs[name]).abs().max())
        if not error <= TOLERANCES[kind]:
            misses[name] = error
    return misses


def record() -> None:
    """Write the outputs of today's code with recipe weights."""
    golden = open_recorded()
    golden.outputs |= run_reference(golden)
    for name in ("musev", "musev_referencenet", "musev_referencenet_noref"):
        golden.outputs |= run_unet(golden, name)
    for variant in LOOPS:
        golden.outputs |= run_loop(golden, variant, video=variant != "musev")
    with RECORDED.open("wb") as file:
        arrays: dict[str, Any] = {name: one.numpy() for name, one in golden.outputs.items()}
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    record()
