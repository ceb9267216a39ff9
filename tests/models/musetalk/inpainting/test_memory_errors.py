"""Errors that mean that memory ran out."""

from __future__ import annotations

import pytest
import torch

from models.musetalk.inpainting.memory_errors import is_out_of_memory


class AcceleratorError(RuntimeError):
    """As torch raises it for errors of CUDA itself."""


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (AcceleratorError("CUDA error: unspecified launch failure"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, is_memory: bool) -> None:
    """The allocator's own error, and those of cuDNN, cuBLAS, CUDA and the host; no fault of the card."""
    assert is_out_of_memory(error) == is_memory
