"""Networks and loop against what the original program computes; and each likely mistake is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.musev import denoising, networks, prompts, windows
from models.musev.nets import attention, unet
from models.musev.recipe import Recipe
from tests.models.musev.golden import (
    LOOPS,
    SOURCES,
    TOLERANCES,
    Golden,
    find_misses,
    open_golden,
    run_loop,
    run_reference,
    run_unet,
)

Patch = pytest.MonkeyPatch
CASES = [(source, *loop) for source in SOURCES for loop in LOOPS.items()]
if "published" in SOURCES:
    CASES.append(("published", "musev", 12))
CLEAR = 10
"""How many times over the tolerance a mistake has to be."""


@pytest.fixture(params=SOURCES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return open_golden(request.param)


@pytest.mark.parametrize("name", ["musev", "musev_referencenet", "musev_referencenet_noref"])
def test_the_unet_predicts_the_noise(golden: Golden, name: str) -> None:
    """Both variants, and that with a reference also without its maps."""
    assert find_misses(golden, run_unet(golden, name)) == {}


def test_the_reference_has_its_maps(golden: Golden) -> None:
    """Twelve of the blocks, and that of the middle."""
    assert find_misses(golden, run_reference(golden)) == {}


@pytest.mark.parametrize(("source", "variant", "frames"), CASES)
def test_the_loop_comes_out_at_the_same_video(source: str, variant: str, frames: int) -> None:
    """Prompt, picture, noise to the bit, the latents after each step, and the decoded frames."""
    golden = open_golden(source)
    assert find_misses(golden, run_loop(golden, variant, frames=frames, video=frames == 12)) == {}


# mistakes of the networks ---------------------------------------------------------------------------------------------


def read_the_last_maps(patch: Patch) -> None:
    patch.setattr(unet, "MAPS_OF_BLOCKS", (*unet.MAPS_OF_BLOCKS[:3], (10, 11)))


def activate_frames_once(patch: Patch) -> None:
    def embed(self: Any, frames: int, motion_speed: float, latents: Tensor) -> Tensor:
        numbers = (torch.arange(frames) * motion_speed).long()
        embedding: Tensor = self.frame_embedding(self.time_proj(numbers).to(latents.dtype))
        return embedding

    patch.setattr(unet.MotionUNet, "_embed_frames", embed)


def time_the_given_frame(patch: Patch) -> None:
    plain = unet.MotionUNet._embed_time

    def embed(self: Any, timestep: Tensor, items: int, frames: int, dtype: torch.dtype) -> Tensor:
        return plain(self, timestep, items, 1, dtype).repeat_interleave(frames, dim=0)

    patch.setattr(unet.MotionUNet, "_embed_time", embed)


def keep_signs(patch: Patch) -> None:
    patch.setattr(Tensor, "abs", lambda self: self)


def count_frames_by_one(patch: Patch) -> None:
    plain = unet.MotionUNet._embed_frames
    patch.setattr(unet.MotionUNet, "_embed_frames", lambda self, frames, _, latents: plain(self, frames, 1.0, latents))


def forget_the_given_frame(patch: Patch) -> None:
    patch.setattr(attention.GivenFrameAttention, "add_given_frame", lambda _, x: x)


def normalise_frames_alone(patch: Patch) -> None:
    plain = nn.GroupNorm.forward

    def forward(self: nn.GroupNorm, x: Tensor) -> Tensor:
        if x.dim() != 5 or self.eps == 1e-6:
            return plain(self, x)
        frames = plain(self, x.transpose(1, 2).flatten(0, 1))
        return frames.unflatten(0, (len(x), -1)).transpose(1, 2)

    patch.setattr(nn.GroupNorm, "forward", forward)


UNET_MISTAKES = (
    read_the_last_maps,
    activate_frames_once,
    time_the_given_frame,
    keep_signs,
    count_frames_by_one,
    forget_the_given_frame,
    normalise_frames_alone,
)


@pytest.mark.parametrize("make_mistake", UNET_MISTAKES)
def test_a_mistake_in_the_network_is_noticed(golden: Golden, make_mistake: Callable[[Patch], None]) -> None:
    """Each of them moves the noise far beyond the tolerance."""
    with pytest.MonkeyPatch.context() as patch:
        make_mistake(patch)
        found = run_unet(golden, "musev_referencenet")
    assert max(find_misses(golden, found).values(), default=0) > CLEAR * TOLERANCES["unet"]


# mistakes of the loop -------------------------------------------------------------------------------------------------


def scale_the_given_frame(patch: Patch) -> None:
    plain = denoising.predict_unit

    def predict(net: Any, recipe: Recipe, schedule: Any, step: int, state: Any, *rest: Any) -> Tensor:
        return plain(net, recipe, schedule, step, replace(state, given=schedule.scale(state.given, step)), *rest)

    patch.setattr(denoising, "predict_unit", predict)


def leave_the_photo_out_of_the_noise(patch: Patch) -> None:
    patch.setattr(windows, "PHOTO_IN_NOISE", 0.0)


def add_windows_without_average(patch: Patch) -> None:
    patch.setattr(denoising, "count_windows", lambda recipe: torch.ones(1, 1, recipe.shot_frames, 1, 1))


def take_zeros_for_no_picture(patch: Patch) -> None:
    def encode(tokens: Any, embedding: Tensor) -> Tensor:
        own = tokens(embedding)
        return torch.cat([torch.zeros_like(own), own])

    patch.setattr(networks, "encode_image", encode)


def take_zeros_for_no_reference(patch: Patch) -> None:
    def read(reference: Any, given: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        own = given[:, :, 0]
        return tuple(reference.read_maps(torch.cat([torch.zeros_like(own), own]), image))

    patch.setattr(networks, "read_maps", read)


def forget_the_mean_of_the_prompt(patch: Patch) -> None:
    patch.setattr(prompts, "restore_mean", lambda _, weighted: weighted)


def swap_the_halves(patch: Patch) -> None:
    plain = Recipe.unit_of
    patch.setattr(Recipe, "unit_of", lambda self, window, half: plain(self, window, 1 - half))


def draw_own_noise_first(patch: Patch) -> None:
    def draw(given: Tensor, frames: int, generator: torch.Generator) -> Tensor:
        own = torch.randn((*given.shape[:2], frames, *given.shape[3:]), generator=generator)
        common = torch.randn(given.shape, generator=generator)
        share = windows.PHOTO_IN_NOISE
        return share**0.5 * given + (1 - share) ** 0.5 * 0.5**0.5 * (common + own)

    patch.setattr(denoising, "draw_noise", draw)


def sample_the_photo(patch: Patch) -> None:
    def encode(vae: Any, picture: Tensor) -> Tensor:
        latents: Tensor = vae.encode(picture).latent_dist.sample(torch.Generator().manual_seed(5))
        return (latents * vae.config.scaling_factor)[:, :, None]

    patch.setattr(networks, "encode_picture", encode)


LOOP_MISTAKES = (
    scale_the_given_frame,
    leave_the_photo_out_of_the_noise,
    take_zeros_for_no_picture,
    take_zeros_for_no_reference,
    forget_the_mean_of_the_prompt,
    swap_the_halves,
    draw_own_noise_first,
    sample_the_photo,
    add_windows_without_average,
)


@pytest.mark.parametrize("make_mistake", LOOP_MISTAKES)
def test_a_mistake_in_the_loop_is_noticed(golden: Golden, make_mistake: Callable[[Patch], None]) -> None:
    """Each of them moves the latents of the first step far beyond the tolerance."""
    variant = "musev" if make_mistake is add_windows_without_average else "musev_referencenet"
    with pytest.MonkeyPatch.context() as patch:
        make_mistake(patch)
        found = run_loop(golden, variant, steps=1)
    step = find_misses(golden, found).get(f"{variant} step0", 0.0)
    assert step > CLEAR * TOLERANCES["step"]


def test_all_mistakes_are_tried() -> None:
    """Seven of the networks and nine of the loop."""
    assert (len(UNET_MISTAKES), len(LOOP_MISTAKES)) == (7, 9)
