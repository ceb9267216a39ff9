"""Batch sizes from free memory, and slots in batches."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_pool.types import grid
from models.musetalk.audio import features as audio_features
from models.musetalk.inpainting import batching as batches
from models.musetalk.inpainting import precision
from models.musetalk.inpainting.batching import BatchSizes, cpu_sizes, iter_batches, next_batch, sizes_for


@pytest.mark.parametrize(
    ("free_gb", "item_bytes", "wanted", "sizes"),
    [
        (141, 2, None, BatchSizes(16, 16, 16)),
        (24, 2, None, BatchSizes(16, 16, 16)),
        (5, 2, None, BatchSizes(16, 8, 8)),
        (4, 2, None, BatchSizes(16, 4, 4)),
        (3.1, 2, None, BatchSizes(1, 1, 1)),
        (1, 2, None, BatchSizes(1, 1, 1)),
        (5, 4, None, BatchSizes(1, 1, 1)),
        (24, 4, None, BatchSizes(16, 16, 16)),
        (24, 2, 64, BatchSizes(64, 64, 64)),
        (24, 2, 12, BatchSizes(8, 8, 8)),
        (4, 2, 64, BatchSizes(16, 4, 4)),
        (24, 2, 1, BatchSizes(1, 1, 1)),
    ],
)
def test_sizes_from_free_memory(free_gb: float, item_bytes: int, wanted: int | None, sizes: BatchSizes) -> None:
    """Powers of two, the UNet at least the decoder's; a wish is kept as far as memory goes."""
    assert sizes_for(int(free_gb * 1e9), item_bytes, wanted) == sizes


@given(st.integers(0, 200 * 10**9), st.sampled_from([2, 4]), st.none() | st.integers(1, 64))
def test_sizes_always_fit(free: int, item_bytes: int, wanted: int | None) -> None:
    """Each is a power of two, the decoder's divides the UNet's, and what they take was free."""
    sizes = sizes_for(free, item_bytes, wanted)
    for size in (sizes.unet, sizes.decode, sizes.encode):
        assert size & (size - 1) == 0 < size
    assert sizes.unet % sizes.decode == 0
    if sizes.unet > 1:
        assert sizes.device_bytes(item_bytes) <= free + 1  # floats lose a byte


@pytest.mark.parametrize("module", [batches, precision, audio_features])
def test_examples_are_true(module: ModuleType) -> None:
    """What the docstrings show."""
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


@given(st.integers(125, 4000), st.sampled_from([None, 1, 2, 4, 8, 16]))
def test_little_is_computed_that_is_not_wanted(frames: int, wanted: int | None) -> None:
    """From 125 frames on, less than a tenth of the slots is empty, and larger spans would leave as many so."""
    step = batches.grid_step(wanted)
    spans = [(span.start, span.stop) for span in grid(frames, step)]
    for size in {step, max(1, step // 4)}:
        assert frames <= batches.count_slots(spans, size, frames) < 1.1 * frames
        assert batches.count_slots(spans, size, frames) == batches.count_slots([(0, frames)], size, frames)


def test_what_was_lost_by_cuts_between_batches() -> None:
    """Spans that ignore the batches computed two thirds more at 2.5 seconds, and half as much again at 20."""
    for frames, before, now in ((63, 0.5, 0.02), (125, 0.5, 0.03), (500, 0.45, 0.02)):
        cut = [(span.start, span.stop) for span in grid(frames)]
        aligned = [(span.start, span.stop) for span in grid(frames, 16)]
        assert batches.count_slots(cut, 16, 10**9) / frames - 1 > before
        assert batches.count_slots(aligned, 16, frames) / frames - 1 < now


@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 6))
def test_sizes_grow_to_what_they_were(unet: int, decode: int, encode: int) -> None:
    """Doubled step by step, each as far as its own limit."""
    full = BatchSizes(1 << unet, 1 << min(unet, decode), 1 << encode)
    sizes = BatchSizes(1, 1, 1)
    for _ in range(6):
        sizes = sizes.grow(full)
    assert sizes == full == full.grow(full)


def test_halving_ends_at_one() -> None:
    """The stage that ran out first, then the UNet, then nothing is left."""
    sizes: BatchSizes | None = BatchSizes(8, 2, 4)
    seen = []
    while sizes is not None:
        seen.append(sizes)
        sizes = sizes.shrink("decode")
    assert seen == [
        BatchSizes(8, 2, 4),
        BatchSizes(8, 1, 4),
        BatchSizes(4, 1, 4),
        BatchSizes(2, 1, 4),
        BatchSizes(1, 1, 4),
    ]
    assert BatchSizes(8, 8, 4).shrink("unet") == BatchSizes(4, 4, 4)
    assert BatchSizes(8, 8, 2).shrink("encode") == BatchSizes(8, 8, 1)
    assert BatchSizes(8, 8, 1).shrink("encode") is None
    assert cpu_sizes(6) == BatchSizes(4, 1, 1)


@given(st.integers(0, 1000), st.integers(1, 200), st.integers(0, 6), st.integers(0, 6))
def test_every_frame_has_its_slot(start: int, count: int, unet: int, decode: int) -> None:
    """Whatever the span, frame n lies in slot n % size, in UNet and decoder, once and in order."""
    size, part = 1 << unet, 1 << min(unet, decode)
    painted: list[int] = []
    at = start
    while at < start + count:
        batch = next_batch(at, start + count, size)
        frames = range(batch.start, batch.stop)
        assert [n % size for n in frames] == list(range(size))[batch.slots]
        for first in range(0, size, part):
            if places := batch.overlap(first, part):
                slots, rows = places
                assert [n % part for n in frames[rows]] == list(range(part))[slots]
                painted += frames[rows]
        at = batch.stop
    assert painted == list(range(start, start + count))


def test_last_batches_of_all_jobs_want_the_same_slots() -> None:
    """Each begins in slot 0, whatever a job's length: none has room where another has frames."""
    for end in range(1, 200):
        *full, last = iter_batches(0, end, 16, end)
        assert all(batch.slots == slice(0, 16) for batch in full)
        assert last.slots == slice(0, end - last.base)
