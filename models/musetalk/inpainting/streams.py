"""The way of work and arrays to a device and back.

On CUDA one thread of the process launches all work, since the plans of cuDNN belong to a thread. Each direction has a
stream of its own and pinned memory, so that nothing waits: `HostCopy.wait` is the only call that does, two batches
later, and it sleeps instead of spinning.

On a CPU work goes to threads that don't share an operator: a sum that several threads make has other last digits than
the sum that one makes, and what is painted must not depend on how many threads a worker has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from models.arrays import U8, Array, Bool
from models.musetalk.inpainting.math_flags import set_math_flags

Result = TypeVar("Result")


class HostCopy(Protocol):
    """Results on their way to the host."""

    def put(self, rows: slice, values: Tensor, finite: Tensor) -> None:
        """Send `values` to these rows, and whether each came of finite numbers."""
        ...

    def wait(self) -> tuple[U8, Bool]:
        """Return all rows, and which are of finite numbers, once they are there."""
        ...


class DeviceStream(Protocol):
    """`depth` batches may be under way before one has to be waited for."""

    depth: int

    def run(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Begin `work`; what comes back waits for its result."""
        ...

    def upload(self, *arrays: Array) -> Sequence[Tensor]:
        """Return the arrays on the device, for work that is launched after this."""
        ...

    def start_copy(self, shape: tuple[int, ...], keeps: Sequence[Tensor]) -> HostCopy:
        """Return room for uint8 results; `keeps` stay alive until they are there."""
        ...


def open_stream(device: torch.device) -> DeviceStream:
    """Return the way to a device; the first one of the process sets how a card computes."""
    if device.type != "cuda":
        return CpuStream()
    set_math_flags()
    return CudaStream(device)


@cache
def launching_thread() -> ThreadPoolExecutor:
    """Return the one thread of this process that launches work on its card."""
    return ThreadPoolExecutor(1, "launch")


@cache
def _operator_threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "operators", initializer=torch.set_num_threads, initargs=(1,))


class CpuStream:
    """As many pieces of work at once as an operator had threads in the thread that makes this."""

    def __init__(self) -> None:
        self.depth = torch.get_num_threads()
        self._pool = _operator_threads(self.depth)

    def run(self, work: Callable[[], Result]) -> Callable[[], Result]:
        return self._pool.submit(work).result

    def upload(self, *arrays: Array) -> list[Tensor]:
        return [torch.from_numpy(array) for array in arrays]

    def start_copy(self, shape: tuple[int, ...], keeps: Sequence[Tensor]) -> CpuCopy:  # noqa: ARG002
        return CpuCopy(np.empty(shape, np.uint8))


class CpuCopy:
    def __init__(self, rows: U8) -> None:
        self._rows, self._finite = rows, np.ones(len(rows), bool)

    def put(self, rows: slice, values: Tensor, finite: Tensor) -> None:
        self._rows[rows], self._finite[rows] = values.numpy(), finite.numpy()

    def wait(self) -> tuple[U8, Bool]:
        return self._rows, self._finite


def allocate_pinned(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Allocate host memory that a copy engine can reach; torch reuses it only when the copy is over."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


class CudaStream:
    """`cuda`, `room` and `thread` are there so that a machine without a GPU can play this through."""

    depth = 2

    def __init__(
        self,
        device: torch.device,
        cuda: Any = torch.cuda,
        room: Callable[[tuple[int, ...], torch.dtype], Tensor] = allocate_pinned,
        thread: Callable[[], Executor] = launching_thread,
    ) -> None:
        self._device, self._cuda, self._room, self._thread = device, cuda, room, thread()
        self._upload_stream, self._download_stream = cuda.Stream(device), cuda.Stream(device)

    def run(self, work: Callable[[], Result]) -> Callable[[], Result]:
        return self._thread.submit(work).result

    def upload(self, *arrays: Array) -> list[Tensor]:
        with self._cuda.stream(self._upload_stream):
            there = [self._stage_pinned(array).to(self._device, non_blocking=True) for array in arrays]
        self._cuda.current_stream(self._device).wait_stream(self._upload_stream)
        return there

    def start_copy(self, shape: tuple[int, ...], keeps: Sequence[Tensor]) -> CudaCopy:
        faces, finite = self._room(shape, torch.uint8), self._room(shape[:1], torch.bool)
        return CudaCopy(self._cuda, self._device, self._download_stream, (faces, finite), keeps)

    def _stage_pinned(self, array: Array) -> Tensor:
        values = torch.from_numpy(array)
        return self._room(tuple(values.shape), values.dtype).copy_(values)


class CudaCopy:
    """Holds every tensor that a copy still reads: the allocator of one stream knows nothing of the other's work."""

    def __init__(
        self, cuda: Any, device: torch.device, stream: Any, room: tuple[Tensor, Tensor], keeps: Sequence[Tensor]
    ) -> None:
        self._cuda, self._device, self._stream, (self._rows, self._finite) = cuda, device, stream, room
        self._held = list(keeps)
        self._event = cuda.Event(blocking=True)  # else the wait takes a core

    def put(self, rows: slice, values: Tensor, finite: Tensor) -> None:
        self._held += values, finite
        self._stream.wait_stream(self._cuda.current_stream(self._device))
        with self._cuda.stream(self._stream):
            self._rows[rows].copy_(values, non_blocking=True)
            self._finite[rows].copy_(finite, non_blocking=True)
            self._event.record(self._stream)

    def wait(self) -> tuple[U8, Bool]:
        self._event.synchronize()
        self._held.clear()
        return self._rows.numpy(), self._finite.numpy()
