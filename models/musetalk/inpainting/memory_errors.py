"""Which errors of PyTorch mean that memory ran out. Pure."""

from __future__ import annotations

import torch

_WORDS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "failed to allocate",
    "cudaerrormemoryallocation",
    "status_alloc_failed",  # cuDNN, cuBLAS, cuSPARSE
    "unable to find an engine",  # cuDNN, where no workspace fits
    "unable to find a valid cudnn algorithm",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or on the host.

    The allocator has an exception of its own; cuDNN, cuBLAS and pinned memory raise RuntimeError or AcceleratorError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)
