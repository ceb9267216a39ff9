"""The frames of a shot, cut into windows that overlap, and the noise that a shot begins with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

WINDOW, OVERLAP = 12, 4
OWN_NOISE = 0.5
"""Share of the noise that each frame has for itself; the rest is common to all frames of the shot."""
PHOTO_IN_NOISE = 1e-3
"""Share of the given frame in the noise."""


def cut_windows(frames: int, length: int = WINDOW, overlap: int = OVERLAP) -> list[range]:
    """Return the windows of a shot; a window that would end where the one before ends is left out.

    >>> cut_windows(13)
    [range(0, 12), range(8, 13)]
    """
    windows: list[range] = []
    for start in range(0, frames, length - overlap):
        window = range(start, min(start + length, frames))
        if not windows or window[-1] != windows[-1][-1]:
            windows.append(window)
    return windows


def draw_noise(given: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """Return (1, 4, frames, h, w) float32 noise for a given frame (1, 4, 1, h, w), from a generator of the processor.

    The common noise is drawn first, then that of each frame.
    """
    common = torch.randn(given.shape, generator=generator)
    own = torch.randn((*given.shape[:2], frames, *given.shape[3:]), generator=generator)
    mixed = math.sqrt(1 - OWN_NOISE) * common + math.sqrt(OWN_NOISE) * own
    return math.sqrt(PHOTO_IN_NOISE) * given + math.sqrt(1 - PHOTO_IN_NOISE) * mixed
