"""The photo as the networks see it: cut to the shape of the clip, as latents' picture and as CLIP's."""

from __future__ import annotations

from math import ceil

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.arrays import U8

CROPS = ("centre", "reference")
CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def read_photo(path: str) -> Image.Image:
    """Return the photo as RGB, transparent parts over white. Raises OSError."""
    with Image.open(path) as image:
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        return image.convert("RGB")


def crop_photo(photo: Image.Image, width: int, height: int, crop: str) -> Image.Image:
    """Return the part of the photo that has the shape of width x height.

    "reference" cuts as the original program does, which always loses the last row and column.
    """
    find = find_reference_box if crop == "reference" else find_centre_box
    return photo.crop(find(photo.width, photo.height, width, height))


def find_centre_box(wide: int, tall: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the largest part in the middle with the shape of width x height.

    >>> find_centre_box(512, 512, 512, 512), find_centre_box(800, 600, 512, 512)
    ((0, 0, 512, 512), (100, 0, 700, 600))
    """
    own_width, own_height = min(wide, round(tall * width / height)), min(tall, round(wide * height / width))
    left, top = (wide - own_width) // 2, (tall - own_height) // 2
    return left, top, left + own_width, top + own_height


def find_reference_box(wide: int, tall: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the same as the original program.

    >>> find_reference_box(512, 512, 512, 512), find_reference_box(800, 600, 512, 512)
    ((0, 0, 511, 511), (100, 0, 700, 599))
    """
    too_wide, too_tall = wide * height > tall * width, wide * height < tall * width
    spare_x = (wide - tall * width / height) / 2 if too_wide else 0
    spare_y = (tall - wide * height / width) / 2 if too_tall else 0
    left, right = (min(ceil(x), wide - 1) for x in (spare_x, wide - spare_x))
    top, bottom = (min(ceil(y), tall - 1) for y in (spare_y, tall - spare_y))
    return left, top, right, bottom


def picture_for_latents(photo: Image.Image, width: int, height: int) -> Tensor:
    """Return (1, 3, height, width) float32, -1 to 1."""
    sized = photo.resize((width, height), Image.Resampling.LANCZOS)
    numbers = torch.from_numpy(np.array(sized, np.float32)) / 127.5 - 1
    return numbers.permute(2, 0, 1)[None].contiguous()


def picture_for_clip(photo: Image.Image) -> Tensor:
    """Return (1, 3, 224, 224) float32 as CLIP's own preparation with its usual values: bicubic, middle, normalised."""
    short, long = min(photo.size), max(photo.size)
    longer = int(CLIP_SIZE * long / short)
    size = (CLIP_SIZE, longer) if photo.width == short else (longer, CLIP_SIZE)
    sized = np.array(photo.resize(size, Image.Resampling.BICUBIC), np.uint8)
    top, left = (sized.shape[0] - CLIP_SIZE) // 2, (sized.shape[1] - CLIP_SIZE) // 2
    middle = sized[top : top + CLIP_SIZE, left : left + CLIP_SIZE].astype(np.float32) / 255
    normal = (middle - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_DEVIATION, np.float32)
    return torch.from_numpy(normal).permute(2, 0, 1)[None].contiguous()


def picture_of_frame(decoded: Tensor) -> U8:
    """Return (height, width, 3) uint8 BGR of a decoded frame (3, height, width), -1 to 1."""
    numbers = (decoded.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(cv2.cvtColor(numbers.permute(1, 2, 0).cpu().numpy(), cv2.COLOR_RGB2BGR), np.uint8)
