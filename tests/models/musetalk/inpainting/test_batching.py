"""Batch sizes from free memory, slots in batches, and the way to a device and back."""

from __future__ import annotations

import doctest
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.musetalk.audio import whisper as speech
from models.musetalk.inpainting import batching as batches
from models.musetalk.inpainting import inpainter as painting
from models.musetalk.inpainting import precision
from models.musetalk.inpainting.batching import BatchSizes, cpu_sizes, next_batch, sizes_for
from models.musetalk.inpainting.streams import CpuStream, CudaStream
from tests.models.musetalk import tiny_nets

CPU = torch.device("cpu")


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


@pytest.mark.parametrize("module", [batches, precision, speech])
def test_examples_are_true(module: ModuleType) -> None:
    """What the docstrings show."""
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


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
    at, painted = start, []
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


class Recorded:
    """Enough of torch.cuda to see what is ordered in which stream, on a machine without a GPU."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.running = "compute"
        self.made = iter(("up", "down"))

    def Stream(self, _: torch.device) -> RecordedStream:  # noqa: N802  torch's name
        return RecordedStream(next(self.made), self.log)

    def Event(self) -> RecordedEvent:  # noqa: N802
        return RecordedEvent(self.log)

    def current_stream(self, _: torch.device) -> RecordedStream:
        return RecordedStream(self.running, self.log)

    @contextmanager
    def stream(self, stream: RecordedStream) -> Any:
        before, self.running = self.running, stream.name
        self.log.append(f"in {stream.name}")
        yield
        self.running = before


class RecordedStream:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: RecordedStream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class RecordedEvent:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def record(self, stream: RecordedStream) -> None:
        self.log.append(f"mark in {stream.name}")

    def synchronize(self) -> None:
        self.log.append("host waits")


def played(cuda: Recorded) -> CudaStream:
    return CudaStream(CPU, cuda, lambda shape, dtype: torch.empty(shape, dtype=dtype))


def test_copies_have_streams_of_their_own() -> None:
    """Up before compute, down after it, in other streams; the host waits for nothing but the copy."""
    cuda = Recorded()
    stream, array = played(cuda), np.arange(6, dtype=np.float32).reshape(2, 3)
    (there,) = stream.upload(array)
    assert np.array_equal(there.numpy(), array)
    copy = stream.start_copy((2, 3), [there])
    for row in range(2):
        copy.put(slice(row, row + 1), there[row : row + 1].to(torch.uint8))
    down = ["down waits for compute", "in down", "mark in down"]
    assert cuda.log == ["in up", "compute waits for up", *down, *down]
    assert np.array_equal(copy.wait(), array)
    assert cuda.log[-1] == "host waits"


def test_a_painter_keeps_two_batches_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """With CUDA's streams the faces are those without, and no batch is waited for before two more are launched."""
    random = np.random.default_rng(0)
    latents = random.normal(size=(10, 8, 32, 32)).astype(np.float32)
    audio_windows = random.normal(size=(10, 50, 16)).astype(np.float32)
    wanted = tiny_nets.miniature(sizes=BatchSizes(2, 1, 1)).inpaint(latents, audio_windows)
    cuda = Recorded()
    monkeypatch.setattr(painting, "open_stream", lambda _: played(cuda))
    found = tiny_nets.miniature(sizes=BatchSizes(2, 1, 1)).inpaint(latents, audio_windows)
    assert np.abs(found.astype(int) - wanted).max() <= 1  # this stream doesn't mind how many threads an operator has
    order = [entry for entry in cuda.log if entry in ("in up", "host waits")]
    assert order == ["in up"] * 3 + ["host waits", "in up"] * 2 + ["host waits"] * 3


def test_the_cpu_works_in_threads_of_its_own() -> None:
    """Arrays are tensors over the same memory, and an operator has one thread, whatever the caller has."""
    array = np.zeros(3, np.float32)
    there: Tensor
    stream = CpuStream()
    (there,) = stream.upload(array)
    array[1] = 5
    assert there.tolist() == [0, 5, 0]
    before = torch.get_num_threads()
    assert stream.run(torch.get_num_threads)() == 1
    assert torch.get_num_threads() == before == stream.depth
