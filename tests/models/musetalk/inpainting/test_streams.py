"""The way to a device and back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.musetalk.inpainting import inpainter as painting
from models.musetalk.inpainting import streams
from models.musetalk.inpainting.batching import BatchSizes
from models.musetalk.inpainting.streams import CpuStream, CudaStream, launching_thread, open_stream
from tests.models.musetalk import tiny_nets

CPU = torch.device("cpu")


class Recorded:
    """Enough of torch.cuda to see what is ordered in which stream, on a machine without a GPU."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.running = "compute"
        self.made = iter(("up", "down"))

    def Stream(self, _: torch.device) -> RecordedStream:  # noqa: N802  torch's name
        return RecordedStream(next(self.made), self.log)

    def Event(self, *, blocking: bool) -> RecordedEvent:  # noqa: N802
        assert blocking, "a wait would spin a core"
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


class AtOnce(Executor):
    """Runs work where it is submitted, so that its order can be told."""

    def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*given, **named))
        return done


def played(cuda: Recorded, thread: Callable[[], Executor] = AtOnce) -> CudaStream:
    return CudaStream(CPU, cuda, lambda shape, dtype: torch.empty(shape, dtype=dtype), thread)


def test_copies_have_streams_of_their_own() -> None:
    """Up before compute, down after it, in other streams; the host waits for nothing but the copy."""
    cuda = Recorded()
    stream, array = played(cuda), np.arange(6, dtype=np.float32).reshape(2, 3)
    (there,) = stream.upload(array)
    assert np.array_equal(there.numpy(), array)
    copy = stream.start_copy((2, 3), [there])
    for row in range(2):
        copy.put(slice(row, row + 1), there[row : row + 1].to(torch.uint8), torch.tensor([row == 0]))
    down = ["down waits for compute", "in down", "mark in down"]
    assert cuda.log == ["in up", "compute waits for up", *down, *down]
    rows, finite = copy.wait()
    assert np.array_equal(rows, array)
    assert finite.tolist() == [True, False]
    assert cuda.log[-1] == "host waits"


def test_one_thread_of_the_process_launches_all_work() -> None:
    """cuDNN keeps its plans by thread: whoever asks, and in whichever span, the same thread launches."""
    both = [played(Recorded(), launching_thread) for _ in range(2)]
    with ThreadPoolExecutor(1) as span:
        waits = [stream.run(threading.get_ident) for stream in both]
        waits += [span.submit(stream.run, threading.get_ident).result() for stream in both]
    assert {wait() for wait in waits} == {both[0].run(threading.get_ident)()}
    assert both[0].run(threading.get_ident)() not in (threading.get_ident(), threading.main_thread().ident)


def test_flags_are_set_before_the_first_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a way to a card sets how it computes; a processor is left alone."""
    order: list[str] = []
    monkeypatch.setattr(streams, "set_math_flags", lambda: order.append("flags"))
    monkeypatch.setattr(streams, "CudaStream", lambda _: order.append("stream"))
    open_stream(CPU)
    assert order == []
    open_stream(torch.device("cuda:0"))
    assert order == ["flags", "stream"]


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
