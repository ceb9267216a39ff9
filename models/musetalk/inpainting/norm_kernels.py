"""Group norm and SiLU in one pass over tensors whose channels go last, as Triton kernels for cards.

PyTorch's group norm leaves channels_last on a card, and SiLU reads and writes everything once more. These kernels read
a tensor twice and write it once, and round where the two modules round: after the norm, and after SiLU. Sums are made
in float32, of values less the first one of their group, so that a mean far from zero costs no digits.

Imported only where a form of the networks asks for it: Triton comes with PyTorch for CUDA alone.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 64, 64
CHUNK_ROWS = 256
"""Pixels that one program sums up; fixed, so that sums don't depend on the card."""


@triton.jit  # type: ignore[untyped-decorator]
def _sum_groups(  # type: ignore[no-untyped-def]
    x, pivots, sums, squares, pixels, channels, width, most: tl.constexpr, tall: tl.constexpr, wide: tl.constexpr
):
    chunk, group, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    groups, chunks = tl.num_programs(1), tl.num_programs(0)
    at = image * groups + group
    columns = tl.arange(0, wide)
    pivot = tl.load(pivots + at)
    first = x + image.to(tl.int64) * pixels * channels + group * width
    total = tl.zeros([tall, wide], tl.float32)
    square = tl.zeros([tall, wide], tl.float32)
    for start in range(0, most, tall):
        rows = chunk * most + start + tl.arange(0, tall)
        inside = (rows < pixels)[:, None] & (columns < width)[None, :]
        values = tl.load(first + rows[:, None] * channels + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        apart = tl.where(inside, values - pivot, 0.0)
        total += apart
        square += apart * apart
    tl.store(sums + at * chunks + chunk, tl.sum(tl.sum(total, 1), 0))
    tl.store(squares + at * chunks + chunk, tl.sum(tl.sum(square, 1), 0))


@triton.jit  # type: ignore[untyped-decorator]
def _normalise(  # type: ignore[no-untyped-def]
    x,
    y,
    means,
    scales,
    weight,
    bias,
    pixels,
    channels,
    groups,
    width,
    silu: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
):
    image = tl.program_id(2)
    rows = tl.program_id(0) * tall + tl.arange(0, tall)
    columns = tl.program_id(1) * wide + tl.arange(0, wide)
    known = columns < channels
    group = image * groups + columns // width
    factor = tl.load(weight + columns, mask=known, other=0.0).to(tl.float32)
    factor = tl.load(scales + group, mask=known, other=0.0) * factor
    offset = tl.load(bias + columns, mask=known, other=0.0).to(tl.float32)
    offset = offset - tl.load(means + group, mask=known, other=0.0) * factor
    inside = (rows < pixels)[:, None] & known[None, :]
    place = image.to(tl.int64) * pixels * channels + rows[:, None] * channels + columns[None, :]
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    result = (values * factor[None, :] + offset[None, :]).to(y.dtype.element_ty)
    if silu:
        full = result.to(tl.float32)
        result = (full / (1.0 + tl.exp(-full))).to(y.dtype.element_ty)
    tl.store(y + place, result, mask=inside)


def measure_groups(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and 1 / deviation of each group, (n * groups,) float32.

    `x` is (n, c, h, w), channels_last.
    """
    count, channels, height, width = x.shape
    pixels, wide = height * width, channels // groups
    chunks = triton.cdiv(pixels, CHUNK_ROWS)
    pivots = x[:, ::wide, 0, 0].float().contiguous()
    sums = torch.empty((count * groups, chunks), dtype=torch.float32, device=x.device)
    squares = torch.empty_like(sums)
    block: dict[str, Any] = {"most": CHUNK_ROWS, "tall": ROWS, "wide": triton.next_power_of_2(wide)}
    _sum_groups[(chunks, groups, count)](x, pivots, sums, squares, pixels, channels, wide, **block)
    size = pixels * wide
    mean, square = sums.sum(1) / size, squares.sum(1) / size
    variance = (square - mean.square()).clamp(min=0)
    return mean + pivots.flatten(), (variance + eps).rsqrt()


def normalise(x: Tensor, means: Tensor, scales: Tensor, weight: Tensor, bias: Tensor, *, silu: bool) -> Tensor:
    """Return the norm of `x` (n, c, h, w), channels_last, from its groups' figures, and SiLU of it where asked for."""
    count, channels, height, width = x.shape
    groups = means.numel() // count
    result = torch.empty_like(x)
    grid = (triton.cdiv(height * width, ROWS), triton.cdiv(channels, COLUMNS), count)
    shape = (height * width, channels, groups, channels // groups)
    _normalise[grid](x, result, means, scales, weight, bias, *shape, silu=silu, tall=ROWS, wide=COLUMNS)
    return result


def norm_and_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool = True) -> Tensor:
    """Return silu(group_norm(x)), channels_last, of `x` (n, c, h, w) in any order."""
    given = x.contiguous(memory_format=torch.channels_last)
    return normalise(given, *measure_groups(given, groups, eps), weight, bias, silu=silu)
