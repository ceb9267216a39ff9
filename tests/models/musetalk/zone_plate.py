"""A picture whose stripes get finer outwards: what is too fine to be shown comes back as coarse stripes, aliases."""

from __future__ import annotations

import numpy as np

from models.arrays import U8


def draw_zone_plate(side: int) -> U8:
    """Draw (side, side, 3) uint8: 0.5 cycles a pixel at the middles of the sides."""
    down, across = np.mgrid[0:side, 0:side] - (side - 1) / 2
    wave = 127.5 + 120 * np.cos(np.pi * (across**2 + down**2) / side)
    return np.rint(wave)[..., None].repeat(3, 2).astype(np.uint8)


def measure_aliases(shrunk: U8, side: int) -> float:
    """Return the spread in levels where stripes of a plate of `side` pixels are twice too fine for the shrunk one."""
    height, width = shrunk.shape[:2]
    down, across = np.mgrid[0:height, 0:width] + 0.5
    radius = np.hypot((across / width - 0.5) * side, (down / height - 0.5) * side)
    finest = 0.5 * min(height, width)  # cycles across the whole picture, of `side` pixels
    return float(shrunk[radius > 2 * finest][:, 0].std())
