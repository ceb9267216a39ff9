"""How a photo is cut and scaled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from models.musev.pictures import (
    crop_photo,
    find_centre_box,
    find_reference_box,
    picture_for_clip,
    picture_for_latents,
    picture_of_frame,
    read_photo,
)
from tests.models.musetalk.recipe import synth_frame


@pytest.mark.parametrize(
    ("photo", "clip", "reference", "centre"),
    [
        ((512, 512), (512, 512), (0, 0, 511, 511), (0, 0, 512, 512)),
        ((800, 600), (512, 512), (100, 0, 700, 599), (100, 0, 700, 600)),
        ((600, 801), (512, 512), (0, 101, 599, 701), (0, 100, 600, 700)),
        ((1000, 500), (512, 320), (100, 0, 900, 499), (100, 0, 900, 500)),
        ((501, 400), (512, 512), (51, 0, 451, 399), (50, 0, 450, 400)),
    ],
)
def test_the_middle_of_the_photo_is_taken(
    photo: tuple[int, int], clip: tuple[int, int], reference: tuple[int, ...], centre: tuple[int, ...]
) -> None:
    """All of it, in the shape of the clip; as the original cuts, without the last row and column."""
    assert find_reference_box(*photo, *clip) == reference
    assert find_centre_box(*photo, *clip) == centre


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    """A photo with alpha lies on white, and is cut like any other."""
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[:, 30:] = (200, 100, 50, 255)
    Image.fromarray(rgba).save(tmp_path / "photo.png")
    photo = read_photo(str(tmp_path / "photo.png"))
    assert photo.mode == "RGB"
    assert photo.getpixel((0, 0)) == (255, 255, 255)
    assert photo.getpixel((59, 39)) == (200, 100, 50)
    assert crop_photo(photo, 64, 64, "reference").size == (40, 39)


def test_numbers_come_back_as_pixels() -> None:
    """A picture that needs no scaling is the same after it was numbers."""
    photo = Image.fromarray(synth_frame(1, 64, 128))
    numbers = picture_for_latents(photo, 128, 64)
    assert numbers.shape == (1, 3, 64, 128)
    assert np.array_equal(picture_of_frame(numbers[0])[..., ::-1], np.array(photo))


@pytest.mark.parametrize("size", [(300, 300), (640, 360), (225, 480)])
def test_clip_sees_what_its_own_preparation_makes(size: tuple[int, int]) -> None:
    """The same numbers as the library's, which needs more packages."""
    photo = Image.fromarray(synth_frame(2, size[1], size[0]))
    wanted = CLIPImageProcessorPil()(photo, return_tensors="pt").pixel_values
    assert (picture_for_clip(photo) - wanted).abs().max() < 1e-5
    assert picture_for_clip(photo).dtype == torch.float32
