"""Weights and pictures that are decided by names and numbers alone: full-size networks without their files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

DATA = Path(__file__).parents[2] / "data" / "musetalk"
"""Inputs and outputs of the published programs, run with recipe weights."""


def golden(name: str) -> dict[str, Any]:
    with np.load(DATA / f"{name}.npz") as arrays:
        return dict(arrays)


def named_shapes(net: nn.Module) -> list[str]:
    """As keys/*.txt have it: "name (sizes) dtype" of each tensor of the state dict."""
    return [f"{name} {tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for name, t in net.state_dict().items()]


def keys(name: str) -> list[str]:
    return (DATA / "keys" / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def tensor_for(name: str, shape: tuple[int, ...], salt: str = "w0", gain: float = 1.0) -> np.ndarray:
    """One tensor, uniform about 0 (scales and variances: about 1), from a generator seeded by its name."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if len(shape) <= 1:
        middle = float(name.endswith(("running_var", "weight")) and not name.endswith("embed_positions.weight"))
        reach = 0.2 if name.endswith("running_var") else 0.1
        return (middle + uniform(name, shape, reach, salt)).astype(np.float32)
    if name.endswith("embed_positions.weight"):
        return uniform(name, shape, 0.5, salt)
    return uniform(name, shape, gain * (3.0 / float(np.prod(shape[1:]))) ** 0.5, salt)


def uniform(name: str, shape: tuple[int, ...], reach: float, salt: str) -> np.ndarray:
    random = np.random.RandomState(zlib.crc32(f"{salt}|{name}".encode()))
    numbers = random.random_sample(int(np.prod(shape)))
    return ((2.0 * numbers - 1.0) * reach).astype(np.float32).reshape(shape)


def fill(net: nn.Module, salt: str = "w0", gains: dict[str, float] | None = None) -> Any:
    """Give `net` its recipe weights and return it, ready to run. `gains`: part of a name -> factor of its tensors."""
    state = {}
    for name, tensor in net.state_dict().items():
        gain = next((value for part, value in (gains or {}).items() if part in name), 1.0)
        value = torch.from_numpy(np.ascontiguousarray(tensor_for(name, tuple(tensor.shape), salt, gain)))
        state[name] = value.to(tensor.dtype)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def synth_frame(number: int, height: int, width: int, seed: int = 11) -> np.ndarray:
    """(height, width, 3) uint8 BGR: slow waves, an ellipse for a head that moves with `number`, blocks of noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    blue = 90 + 70 * np.sin(x / width * 5 + 0.3 * number)
    green = 110 + 60 * np.cos(y / height * 4 - 0.2 * number)
    red = 120 + 80 * np.sin((x + y) / (width + height) * 9 + 0.1 * number)
    middle_x, middle_y = width * 0.5 + 4 * np.sin(number), height * 0.48 + 3 * np.cos(number)
    head = ((x - middle_x) / (0.19 * width)) ** 2 + ((y - middle_y) / (0.33 * height)) ** 2 < 1
    blue[head] = 120 + 30 * np.sin(y[head] / 9)
    green[head] = 150 + 25 * np.cos(x[head] / 7)
    red[head] = 200 + 20 * np.sin((x[head] - y[head]) / 11)
    blocks = ((height + 7) // 8, (width + 7) // 8, 3)
    noise = np.random.RandomState(seed + number).randint(-12, 13, size=blocks).repeat(8, 0).repeat(8, 1)
    picture = np.stack([blue, green, red], -1) + noise[:height, :width]
    return np.clip(picture, 0, 255).astype(np.uint8)


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, of the root mean square of what is wanted."""
    return float(np.abs(found - wanted).max() / np.sqrt((wanted.astype(np.float64) ** 2).mean()))
