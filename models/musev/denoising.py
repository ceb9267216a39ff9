"""One shot, from noise to latents: what a unit predicts, how predictions are added, and how the next shot begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.musev.nets.unet import Conditions, MotionUNet
from models.musev.recipe import Recipe
from models.musev.schedule import Schedule
from models.musev.windows import draw_noise

MAPS = 13


@dataclass(frozen=True, slots=True)
class Encoded:
    """Photo and prompts as the network takes them; items are [without the prompt, with it].

    words  (2, tokens, width);   image (2, 4, width), or None;   maps 13 of (2, channels, h, w), or none
    """

    words: Tensor
    image: Tensor | None = None
    maps: tuple[Tensor, ...] = ()

    def to_tensors(self) -> dict[str, Tensor]:
        named = {f"map{number:02}": one for number, one in enumerate(self.maps)}
        return {"words": self.words, **({} if self.image is None else {"image": self.image}), **named}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Encoded:
        maps = tuple(tensors[name] for name in sorted(tensors) if name.startswith("map"))
        return cls(tensors["words"], tensors.get("image"), maps)

    def take_half(self, half: int, recipe: Recipe) -> Conditions:
        item = slice(half, half + 1)
        image = None if self.image is None else self.image[item]
        tuning = recipe.tuning
        return Conditions(
            self.words[item], [one[item] for one in self.maps], image, tuning.picture_scale, tuning.motion_speed
        )


@dataclass(frozen=True, slots=True)
class ShotState:
    """What a step begins with, all on the processor.

    latents  (1, 4, frames, h, w) float32;   given  (1, 4, 1, h, w) the frame before the first, without noise
    random   state of the generator after the noise that was drawn so far
    memory   of the scheduler
    """

    latents: Tensor
    given: Tensor
    random: Tensor
    memory: dict[str, Tensor] = field(default_factory=dict)

    def to_tensors(self) -> dict[str, Tensor]:
        own = {"latents": self.latents, "given": self.given, "random": self.random}
        return {**own, **{f"memory.{name}": value for name, value in self.memory.items()}}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> ShotState:
        memory = {name.removeprefix("memory."): value for name, value in tensors.items() if name.startswith("memory.")}
        return cls(tensors["latents"], tensors["given"], tensors["random"], memory)


def begin_shot(recipe: Recipe, schedule: Schedule, given: Tensor, random: Tensor | None = None) -> ShotState:
    """Return the state of the first step of a shot: noise of the seed, or of where the last shot left the generator."""
    generator = torch.Generator()
    if random is None:
        generator.manual_seed(recipe.seed)
    else:
        generator.set_state(random)
    noise = draw_noise(given, recipe.shot_frames, generator)
    return ShotState(noise * schedule.noise_scale, given, generator.get_state())


@torch.inference_mode()
def predict_unit(
    unet: MotionUNet, recipe: Recipe, schedule: Schedule, step: int, state: ShotState, encoded: Encoded, unit: int
) -> Tensor:
    """Return (1, 4, frames of the window, h, w) float32 on the processor: the noise that a unit sees in a step."""
    window, half = recipe.open_unit(unit)
    scaled = schedule.scale(state.latents, step)[:, :, window.start : window.stop]
    shown = torch.cat([state.given, scaled], dim=2).to(unet.device, unet.dtype)
    time = torch.tensor(schedule.timesteps[step], device=unet.device)
    return unet.predict(shown, time, encoded.take_half(half, recipe))[:, :, 1:].float().cpu()


def count_windows(recipe: Recipe) -> Tensor:
    """Return (1, 1, frames, 1, 1): how many windows see each frame."""
    counts = torch.zeros(1, 1, recipe.shot_frames, 1, 1)
    for window in recipe.windows:
        counts[:, :, window.start : window.stop] += 1
    return counts


def advance_shot(
    recipe: Recipe, schedule: Schedule, step: int, state: ShotState, outputs: Mapping[int, Tensor]
) -> ShotState:
    """Return the state after a step: predictions averaged where windows overlap, guided, and followed."""
    sums = {half: torch.zeros_like(state.latents) for half in recipe.halves}
    counts = count_windows(recipe)
    for number, window in enumerate(recipe.windows):
        for half in recipe.halves:
            sums[half][:, :, window.start : window.stop] += outputs[recipe.unit_of(number, half)]
    with_prompt = sums[1] / counts
    noise = with_prompt
    if 0 in sums:
        without = sums[0] / counts
        noise = without + recipe.guidance * (with_prompt - without)
    generator = torch.Generator()
    generator.set_state(state.random)
    latents, memory = schedule.advance(step, state.memory, noise, state.latents, generator)
    return ShotState(latents, state.given, generator.get_state(), memory)
