"""How float32 is multiplied, and how kernels are chosen: set once a process, before the first kernel.

The switches belong to the process. Were they set by each job, latents and features would depend on what ran before.
"""

from __future__ import annotations

from typing import Any

import torch


def set_math_flags() -> None:
    """Make float32 exact, and the choice of kernels a rule instead of a race.

    No TF32: what runs in float32 is small (face networks, Whisper), or asks for exactness. No trials of cuDNN: they
    choose by timing, so that two equal cards may choose different kernels and round differently. A transposed
    convolution has kernels that add in any order; `deterministic` leaves those out.

    The older switches are set as well as the newer one, since a mixture makes the getters raise, which Inductor calls.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    cudnn: Any = torch.backends.cudnn  # whose stubs don't know `conv`
    cudnn.conv.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
