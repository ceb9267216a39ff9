"""How many frames go through a network at once, and in which place of the batch each one goes. Pure.

Every batch has the same shape, and frame n of a job is always in slot n % size: a kernel may add in another order for
another shape or slot, and then a frame would depend on how the job was cut into spans.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace

GB = 1e9
_CONTEXT_GB, _WEIGHTS_GB, _WORKSPACE_GB = 0.6, 1.9, 0.5
_SLACK = 1.3  # of the allocator
_UNET_GB, _DECODE_GB = 0.017 * _SLACK, 0.101 * _SLACK  # a frame, 16 bit, flash attention
_MOST = 16


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """Frames a batch, powers of two; `decode` is at most `unet`."""

    unet: int
    decode: int
    encode: int

    def shrink(self, stage: str) -> BatchSizes | None:
        """Return smaller sizes after `stage` ran out of memory; None where all are 1."""
        if stage == "encode":
            return replace(self, encode=self.encode // 2) if self.encode > 1 else None
        if stage == "decode" and self.decode > 1:
            return replace(self, decode=self.decode // 2)
        if self.unet > 1:
            return replace(self, unet=self.unet // 2, decode=min(self.decode, self.unet // 2))
        return None

    def grow(self, most: BatchSizes) -> BatchSizes:
        """Return doubled sizes, none larger than in `most`."""
        pairs = zip(astuple(self), astuple(most), strict=True)
        return BatchSizes(*(min(2 * size, limit) for size, limit in pairs))

    def batch_bytes(self, item_bytes: int) -> int:
        """Return the device memory of one batch of each stage."""
        frames = self.unet * _UNET_GB + (self.decode + self.encode) * _DECODE_GB
        return int(GB * item_bytes / 2 * frames)

    def device_bytes(self, item_bytes: int) -> int:
        """Return the device memory of a worker with numbers of `item_bytes`: context, weights and these batches."""
        wide = item_bytes / 2
        frames = self.unet * _UNET_GB + self.decode * _DECODE_GB
        return int(GB * (_CONTEXT_GB + _WORKSPACE_GB + wide * (_WEIGHTS_GB + frames)))


ON_CPU = BatchSizes(unet=4, decode=1, encode=1)
"""There a larger batch helps the UNet alone, and not beyond four."""


def sizes_for(free_bytes: int, item_bytes: int = 2, wanted: int | None = None) -> BatchSizes:
    """Return the batch sizes on a GPU.

    free_bytes  free memory before the weights are loaded
    item_bytes  of a number of the network
    wanted      the user's own batch size; memory may still allow less

    >>> sizes_for(int(24e9))
    BatchSizes(unet=16, decode=16, encode=16)
    >>> sizes_for(int(4e9))
    BatchSizes(unet=16, decode=4, encode=4)
    """
    wide, most = item_bytes / 2, wanted or _MOST
    left = free_bytes / GB - _CONTEXT_GB - _WORKSPACE_GB - wide * _WEIGHTS_GB
    decode = _clamp_to_power(left / (wide * (_DECODE_GB + _UNET_GB)), most)  # the UNet takes as many frames
    rest = left - decode * wide * _DECODE_GB
    unet = max(decode, _clamp_to_power(rest / (wide * _UNET_GB), most))
    return BatchSizes(unet, decode, decode)


def cpu_sizes(wanted: int | None = None) -> BatchSizes:
    """Return the same for every worker, whatever memory it has: bytes of a frame depend on the shape of its batch."""
    return replace(ON_CPU, unet=_floor_power(wanted)) if wanted else ON_CPU


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames [start, stop) of a job in a batch of `size` that begins with frame `base`."""

    base: int
    size: int
    start: int
    stop: int

    @property
    def slots(self) -> slice:
        return slice(self.start - self.base, self.stop - self.base)

    def overlap(self, at: int, size: int) -> tuple[slice, slice] | None:
        """Return which of the slots [at, at + size) are used, counted from `at`, and their frames in the batch."""
        first, last = max(at, self.slots.start), min(at + size, self.slots.stop)
        if first >= last:
            return None
        return slice(first - at, last - at), slice(first - self.slots.start, last - self.slots.start)


def next_batch(start: int, stop: int, size: int, end: int | None = None) -> Batch:
    """Return the batch that holds frame `start`, with as many of the frames up to `stop` as belong into it.

    The last batch of a job of `end` frames has half the size where that is enough: an empty slot costs as much as a
    frame. One more shape is all that comes of it.

    >>> next_batch(6, 20, 4)
    Batch(base=4, size=4, start=6, stop=8)
    >>> next_batch(20, 22, 4, end=22)
    Batch(base=20, size=2, start=20, stop=22)
    """
    base = start // size * size
    if end is not None and 0 < end - base <= size // 2:
        size //= 2
    return Batch(base, size, start, min(stop, base + size))


def count_slots(spans: Iterable[tuple[int, int]], size: int, end: int) -> int:
    """Return how many slots are computed for a job of `end` frames that is cut into these spans."""
    return sum(batch.size for start, stop in spans for batch in iter_batches(start, stop, size, end))


def iter_batches(start: int, stop: int, size: int, end: int | None = None) -> Iterator[Batch]:
    """Yield the batches of frames [start, stop)."""
    while start < stop:
        batch = next_batch(start, stop, size, end)
        yield batch
        start = batch.stop


def grid_step(wanted: int | None = None) -> int:
    """Return the frames at whose multiples spans begin: the largest batch of any device."""
    return _floor_power(wanted or _MOST)


def _clamp_to_power(count: float, most: int) -> int:
    return _floor_power(max(1, min(int(count), most)))


def _floor_power(count: int) -> int:
    """Return the largest power of two that is at most `count`."""
    return 1 << (count.bit_length() - 1)
