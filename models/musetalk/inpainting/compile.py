"""torch.compile without the wait: eager at once, compiled when it is ready and gives the same.

Kernels are kept on disk between starts. Workers that start together compile one after the other, so that all but the
first find the kernels there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.atomic import lock
from models.musetalk.nets.diffusion import tell_compiler

Results = Tensor | tuple[Tensor, ...]
State = Literal["waiting", "compiling", "ready", "differs", "failed"]

TOLERANCE = 0.02
"""Difference from eager, of the values' own spread; half precision alone makes about a hundredth."""
LEVELS = 2
"""The same for uint8."""
SHARE, FACTOR = 1e-4, 4
"""So few values may differ by more, and none by so many times as much: among millions some are at an edge."""


def make_kernel_folder(cache: Path, device: torch.device) -> Path:
    """Create the folder for kernels of this card and these versions; tell Inductor and Triton."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    named = f"{card}-torch{torch.__version__}-diffusers{version('diffusers')}"
    folder = cache / "".join(c if c.isalnum() or c in "-." else "_" for c in named)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    return folder


class CompiledModule:
    """Calls `eager` until a compiled version of it is there that gives the same on `probe`.

    probe    arguments of the one shape that is compiled; calls of any other shape stay eager
    folder   from `make_kernel_folder`
    backend  of torch.compile
    """

    def __init__(self, eager: nn.Module, probe: tuple[Tensor, ...], folder: Path, backend: Any = "inductor") -> None:
        self._eager, self._probe, self._folder, self._backend = eager, probe, folder, backend
        self._shapes = _shapes(probe)
        self._fast: Callable[..., Any] | None = None
        self._state: State = "waiting"
        self._thread = threading.Thread(target=self._build, name="compile", daemon=True)

    @property
    def state(self) -> State:
        """ "failed" if the thread ended with an exception, which stands in the worker's log."""
        ended = self._state == "compiling" and not self._thread.is_alive()
        return "failed" if ended else self._state

    def start(self) -> None:
        self._state = "compiling"
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def __call__(self, *given: Tensor) -> Any:
        fast = self._fast
        return self._eager(*given) if fast is None or _shapes(given) != self._shapes else fast(*given)

    @torch.no_grad()  # a property of the thread, and compiled code is for the mode it was made in
    def _build(self) -> None:
        with _lock_file(self._folder / "lock"):
            tell_compiler()
            fast = torch.compile(self._eager, backend=self._backend, dynamic=False)
            alike = are_close(fast(*self._probe), self._eager(*self._probe))
        self._probe = ()
        if alike:
            self._fast = fast
        self._state = "ready" if alike else "differs"


def are_close(found: Results, wanted: Results) -> bool:
    """Whether the results of a module, one tensor or several, are the same but for rounding."""
    if isinstance(found, Tensor) and isinstance(wanted, Tensor):
        return is_close(found, wanted)
    return all(map(is_close, found, wanted))


def is_close(found: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors are the same but for rounding: all but the rarest of their values, and those nearly."""
    if wanted.dtype == torch.bool:
        return bool((found == wanted).all())
    apart = (found.float() - wanted.float()).abs()
    most = LEVELS if wanted.dtype == torch.uint8 else TOLERANCE * float(wanted.float().std())
    return bool((apart <= FACTOR * most).all() and (apart > most).float().mean() <= SHARE)


def _shapes(tensors: tuple[Tensor, ...]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in tensors]


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    """Hold a lock that one process has at a time; it ends with the process."""
    with path.open("a") as file:
        lock(file.fileno(), wait=True)
        yield
