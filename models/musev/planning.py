"""From a request to a plan: what is asked, what is installed, how large it can be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from models.checkpoints.manifest import recorded_sha256, sample_hash
from models.motion.prompts import check_brackets, refuse_long
from models.motion.sizes import choose_size
from models.motion.types import MotionPlan, MotionRequest
from models.musev.prompts import CALM_PROMPT, MAX_TOKENS, NEGATIVE_PROMPT, check_weights, tokenize_prompt
from models.musev.recipe import FPS, Recipe, choose_steps, count_frames, read_tuning, select_weights
from models.musev.schedule import Schedule, check_steps, choose_config, describe_config, read_config
from models.musev.weights.index import (
    LICENCE,
    LICENCE_NOTE,
    WATERMARK_NOTE,
    Selection,
    installed_files,
    missing_error,
    missing_files,
)

DEFAULT_SIDE = 512
NETWORK_BYTES = {"musev_referencenet": int(5.6 * 2**30), "musev": int(4.0 * 2**30)}
"""Weights in fp16, the context of a card and what PyTorch keeps; estimated from the number of parameters."""
PIXEL_BYTES = 4_800
"""Memory of one unit for each pixel: 3,100 bytes of tensors of a window, and half as much for the kernels."""


def make_plan(request: MotionRequest) -> MotionPlan:
    """Check a request and what is installed. Raises EngineError; see `MotionEngine.inspect`."""
    root, tuning = Path(request.models_dir), read_tuning(request.options)
    selection, steps = select_weights(request, tuning), choose_steps(request, tuning)
    if missing_files(root, selection):
        raise missing_error(root, selection)
    from models.musev.weights.loader import check_base, read_shape

    check_base(root, selection, read_shape(root, selection))
    prompts = (
        CALM_PROMPT if request.prompt is None else request.prompt,
        (NEGATIVE_PROMPT if request.negative_prompt is None else request.negative_prompt),
    )
    check_prompts(root, selection, *prompts)
    with Image.open(request.photo) as photo:
        photo_size = photo.size
    width, height = choose_size(
        photo_size,
        request.size,
        DEFAULT_SIDE,
        lambda wide, tall: count_bytes(selection.variant, wide, tall),
        request.device_bytes,
    )
    file = f"{selection.base}/scheduler/scheduler_config.json"
    config = choose_config(read_config(root / file, file), is_lcm=tuning.lcm)
    check_steps(config, file, steps[0])
    recipe = Recipe(
        selection.variant,
        selection.base,
        *prompts,
        request.seed,
        width,
        height,
        count_frames(request.seconds),
        *steps,
        config,
        hash_weights(root, selection),
        tuning,
    )
    return describe_plan(request, recipe)


def describe_plan(request: MotionRequest, recipe: Recipe) -> MotionPlan:
    schedule = Schedule(recipe.scheduler, recipe.steps)
    notes = [LICENCE_NOTE, WATERMARK_NOTE]
    if recipe.shots > 1:
        notes.append(f"the clip goes on {recipe.shots - 1} times from its own last frame, so that errors add up")
    return MotionPlan(
        request,
        recipe.width,
        recipe.height,
        recipe.frames,
        str(FPS),
        (recipe.units,) * (recipe.shots * len(schedule.timesteps)),
        recipe.to_identity(),
        count_bytes(recipe.variant, recipe.width, recipe.height),
        describe_recipe(request, recipe, len(schedule.timesteps)),
        tuple(notes),
    )


def describe_recipe(request: MotionRequest, recipe: Recipe, steps: int) -> dict[str, Any]:
    """Return what result.json says of a clip."""
    return {
        "engine": "musev",
        "weights": recipe.variant,
        "base": recipe.base,
        "licence": LICENCE,
        "scheduler": describe_config(recipe.scheduler),
        "lcm": recipe.tuning.lcm,
        "steps": steps,
        "guidance": recipe.guidance,
        "motion_speed": recipe.tuning.motion_speed,
        "shots": recipe.shots,
        "windows": len(recipe.windows),
        "seed": recipe.seed,
        "prompt": recipe.prompt,
        "prompt_from": "the preset for a calm speaker" if request.prompt is None else "the job",
        "negative_prompt": recipe.negative_prompt,
    }


def check_prompts(root: Path, selection: Selection, prompt: str, negative_prompt: str) -> None:
    """Raise EngineError bad_prompt for brackets without a partner, weights that are none, and too many tokens."""
    from models.musev.weights.loader import load_tokenizer

    tokenizer = None
    for key, text in (("motion.prompt", prompt), ("motion.negative_prompt", negative_prompt)):
        check_brackets(text, key)
        check_weights(text, key)
        tokenizer = tokenizer or load_tokenizer(root, selection)
        if (tokens := len(tokenize_prompt(text, tokenizer))) > MAX_TOKENS:
            raise refuse_long(tokens, MAX_TOKENS, key)


def count_bytes(variant: str, width: int, height: int) -> int:
    """Return the memory of a card that a unit of a clip of this size takes, the networks included."""
    return NETWORK_BYTES[variant] + width * height * PIXEL_BYTES


def hash_weights(root: Path, selection: Selection) -> str:
    """Return a hash that is another one as soon as a weight or a config is another one."""
    lines = (f"{path.name} {hash_weight_file(root, path)}" for path in installed_files(root, selection))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def hash_weight_file(root: Path, path: Path) -> str:
    """Return the SHA-256 that is recorded of a file, else one of samples of it."""
    name = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    return recorded_sha256(root, name) or recorded_sha256(path.parent, path.name) or sample_hash(path)
