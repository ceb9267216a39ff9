"""What an inspection may cost. A small file can ask for any number of pictures, samples and bytes.

Decoders charge what they are about to do; outside of `spend` that costs nothing and has no limit.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import cv2

from models.types import EngineError, Limits, ProgressCallback


class Budget:
    """What is left of the limits. Each charge is a sign of life, too."""

    def __init__(self, limits: Limits, progress: ProgressCallback) -> None:
        self._limits, self._progress = limits, progress
        self._pixels, self._bytes = limits.inspect_pixels, limits.inspect_bytes
        self._until_s = time.monotonic() + limits.inspect_s
        self.name = ""

    def charge(self, pixels: int, size_bytes: int) -> None:
        """Take from what is left. Raises EngineError media_too_costly when nothing is."""
        self._progress(0)
        self._pixels -= pixels
        self._bytes -= size_bytes
        if self._pixels < 0:
            raise self.refuse(f"decode {self._limits.inspect_pixels / 1e9:g} thousand million pixels", "gigapixels")
        if self._bytes < 0:
            raise self.refuse(f"decode {self._limits.inspect_bytes / 2**30:g} GiB of sound or notes", "gib")
        if time.monotonic() > self._until_s:
            raise self.refuse(f"work for {self._limits.inspect_s:g} s", "s")

    def refuse(self, what: str, setting: str) -> EngineError:
        message = f"{self.name or 'the media'} could not be inspected: one would have to {what} or more"
        hint = f"save it again, shorter or smaller, as jpg, png, mp4 or wav; the limit is limits.inspect_{setting}"
        return EngineError("media_too_costly", message, hint)


_BUDGET: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextmanager
def spend(limits: Limits, progress: ProgressCallback) -> Iterator[Budget]:
    """Hold what happens inside to the limits of an inspection, memory included.

    Raises EngineError media_too_costly.
    """
    budget = Budget(limits, progress)
    token = _BUDGET.set(budget)
    try:
        with _limit_memory(limits.inspect_memory_bytes):
            yield budget
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        raise budget.refuse(f"take {limits.inspect_memory_bytes / 2**20:.0f} MiB of memory", "memory_mib") from error
    finally:
        _BUDGET.reset(token)


def name_cost(name: str) -> None:
    """Say on which file the present inspection, if there is one, works from now on."""
    if (budget := _BUDGET.get()) is not None:
        budget.name = name


def charge(*, pixels: int = 0, size_bytes: int = 0) -> None:
    """Take from the budget of the present inspection, if there is one, and show that it goes on."""
    if (budget := _BUDGET.get()) is not None:
        budget.charge(pixels, size_bytes)


@contextmanager
def _limit_memory(size_bytes: int) -> Iterator[None]:
    """Let this process have so much more writable memory than it has now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _read_data_bytes() + size_bytes
    if hard == resource.RLIM_INFINITY or wanted < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _read_data_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmData:")[2].split()[0])
