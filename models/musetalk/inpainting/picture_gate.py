"""Whether a faster way paints the same pictures: limits on how far grey levels are off, and on the tone. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PictureLimit:
    """What a picture may differ by.

    levels  by so many grey levels most values may differ
    share   of the values that have to be within them
    shift   levels by which the mean of a colour in a picture may differ: a tint shows where single values don't
    """

    levels: int
    share: float
    shift: float


FREE = PictureLimit(levels=1, share=0.999, shift=0.25)
"""Of other roundings in the same precision."""
QUANTISED = PictureLimit(levels=4, share=0.99, shift=0.5)
"""Of stages in 8 bits."""


@dataclass(frozen=True, slots=True)
class PictureDifference:
    """How far pictures are from others.

    within  which share of the values is within the levels of the limit
    shift   the largest difference of the mean of a colour in a picture, in levels
    most    the largest difference of a value
    """

    within: float
    shift: float
    most: int

    def passes(self, limit: PictureLimit) -> bool:
        return self.within >= limit.share and self.shift <= limit.shift


def compare_pictures(found: Tensor, wanted: Tensor, limit: PictureLimit) -> PictureDifference:
    """Compare (n, h, w, 3) uint8 with those of the plain way."""
    apart = found.float() - wanted.float()
    size = apart.abs()
    within = float((size <= limit.levels).float().mean())
    return PictureDifference(within, float(apart.mean((1, 2)).abs().max()), int(size.max()))
