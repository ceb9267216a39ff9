"""The way of pictures to the device of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from models.arrays import Array


def to_device(array: Array, device: torch.device) -> Tensor:
    """Return the array on a device.

    On a card it goes through pinned memory, which a copy engine reads while the host goes on.
    """
    values = torch.from_numpy(array)
    if device.type != "cuda":
        return values.to(device)
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return pinned.copy_(values).to(device, non_blocking=True)
