"""Nearest doubling and the 3 x 3 convolution after it in one pass, as a Triton kernel for cards.

The doubled picture is never written: each of the four pixels that come of one is summed from the small picture. With
the published 3 x 3 kernel ("exact") it rounds where the two modules round on a card: after the sums, which are made in
float32, and after the bias. With the folded 2 x 2 kernels ("free") it does 4/9 of the arithmetic and rounds once.

Imported only where a form of the networks asks for it: Triton comes with PyTorch for CUDA alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

PHASES = 4
"""Pixels that come of one."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Blocks of one program: pixels, filters, and channels that it sums at once; powers of two, 16 at least."""

    tall: int
    wide: int
    deep: int

    def count_programs(self, pixels: int, filters: int, count: int) -> tuple[int, int, int]:
        return triton.cdiv(pixels, self.tall), triton.cdiv(filters, self.wide), PHASES * count

    def shared_bytes(self, item_bytes: int, stages: int = 3) -> int:
        """Return the shared memory of a program whose loads are `stages` deep in flight."""
        return stages * item_bytes * self.deep * (self.tall + self.wide)


def choose_tiling(pixels: int, channels: int, filters: int, item_bytes: int) -> Tiling:
    """Return the blocks for a shape; they depend on nothing else, so that a frame has the same sums in every batch."""
    tall, wide = (min(most, max(16, triton.next_power_of_2(size))) for most, size in ((128, pixels), (64, filters)))
    deep = min(64 if item_bytes == 2 else 32, max(16, triton.next_power_of_2(channels)))
    return Tiling(tall, wide, deep)


@triton.jit  # type: ignore[untyped-decorator]
def _convolve(  # type: ignore[no-untyped-def]
    x, y, weight, bias, height, width, channels, filters,
    side: tl.constexpr, tall: tl.constexpr, wide: tl.constexpr, deep: tl.constexpr, widen: tl.constexpr
):  # fmt: skip
    phase, image = tl.program_id(2) % 4, tl.program_id(2) // 4
    below, right = phase // 2, phase % 2
    pixels = height * width
    places = tl.program_id(0) * tall + tl.arange(0, tall)
    rows, columns = places // width, places % width
    outs = tl.program_id(1) * wide + tl.arange(0, wide)
    given = x + image.to(tl.int64) * pixels * channels
    kernel = weight if side == 3 else weight + phase * 4 * channels * filters
    total = tl.zeros([tall, wide], tl.float32)
    for tap in range(0, side * side):
        down, across = below + tap // side, right + tap % side
        if side == 3:
            down, across = (down + 1) // 2, (across + 1) // 2
        row, column = rows + down - 1, columns + across - 1
        inside = (places < pixels) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        source = given + (row * width + column) * channels
        for start in range(0, channels, deep):
            parts = start + tl.arange(0, deep)
            known = parts < channels
            values = tl.load(source[:, None] + parts[None, :], mask=inside[:, None] & known[None, :], other=0.0)
            at = kernel + (tap * channels + parts)[:, None] * filters + outs[None, :]
            factors = tl.load(at, mask=known[:, None] & (outs < filters)[None, :], other=0.0)
            if widen:
                values, factors = values.to(tl.float32), factors.to(tl.float32)
            total = tl.dot(values, factors, total, input_precision="ieee")
    offset = tl.load(bias + outs, mask=outs < filters, other=0.0).to(tl.float32)
    if side == 3:
        total = total.to(y.dtype.element_ty).to(tl.float32)
    result = (total + offset[None, :]).to(y.dtype.element_ty)
    there = (2 * rows + below) * 2 * width + 2 * columns + right
    target = y + image.to(tl.int64) * 4 * pixels * filters + there[:, None] * filters + outs[None, :]
    tl.store(target, result, mask=(places < pixels)[:, None] & (outs < filters)[None, :])


def pack_plain(weight: Tensor) -> Tensor:
    """Return an (out, in, 3, 3) kernel as (9, in, out), for the exact mode."""
    return weight.permute(2, 3, 1, 0).flatten(0, 1).contiguous()


def pack_folded(weight: Tensor) -> Tensor:
    """Return an (in, out, 4, 4) kernel of `fusion.transposed_kernel` as (16, in, out), for the free mode."""
    taps = weight[:, :, [3, 1, 2, 0]][..., [3, 1, 2, 0]].unflatten(3, (2, 2)).unflatten(2, (2, 2))
    return taps.permute(2, 4, 3, 5, 0, 1).flatten(0, 3).contiguous()


def double_and_convolve(x: Tensor, packed: Tensor, bias: Tensor) -> Tensor:
    """(n, c, h, w) in any order -> (n, c', 2h, 2w), channels_last; `packed` tells the mode."""
    given = x.contiguous(memory_format=torch.channels_last)
    count, channels, height, width = given.shape
    filters, pixels = packed.shape[2], height * width
    shape = (count, filters, 2 * height, 2 * width)
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    tiling = choose_tiling(pixels, channels, filters, x.dtype.itemsize)
    grid = tiling.count_programs(pixels, filters, count)
    blocks = {"tall": tiling.tall, "wide": tiling.wide, "deep": tiling.deep}
    mode = {"side": 3 if len(packed) == 9 else 2, "widen": not x.is_cuda}  # the interpreter can't multiply bf16
    _convolve[grid](given, result, packed, bias, height, width, channels, filters, **mode, **blocks)
    return result
