"""A torch that plays a card on the processor: the same calls, tensors in the host's memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

CARD = torch.device("cuda:0")
MIB = 1 << 20


class PretendTorch:
    """Takes the place of `torch` in a module: places and pinned memory are dropped, calls of the card counted.

    reserved_bytes   what the allocator holds, at each question the next
    """

    def __init__(self, *reserved_bytes: int) -> None:
        self.calls: list[str] = []
        self._reserved = list(reserved_bytes)
        names = ("synchronize", "empty_cache", "reset_peak_memory_stats")
        about = {name: self._count(name) for name in names}
        self.cuda = SimpleNamespace(
            memory_reserved=lambda _device: self._reserved.pop(0),
            max_memory_reserved=lambda _device: 900 * MIB,
            **about,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def zeros(self, *shape: Any, device: Any = None, pin_memory: bool = False, **more: Any) -> torch.Tensor:  # noqa: ARG002
        return torch.zeros(*shape, **more)

    def empty(self, *shape: Any, device: Any = None, **more: Any) -> torch.Tensor:  # noqa: ARG002
        return torch.empty(*shape, **more)

    def _count(self, name: str) -> Any:
        return lambda *_: self.calls.append(name)
