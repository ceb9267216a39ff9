"""Masks of parsed faces, smoothed over time: the parser sees each frame by itself, and its edges flicker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat

import numpy as np

from models.arrays import F32, U8

SMOOTH_S = 0.12
"""Standard deviation of the window in seconds; a lip or a chin moves slower."""
_REACH = 2.0


def smooth_masks(masks: Iterable[U8 | None], shots: Sequence[tuple[int, int]], sigma: float) -> Iterator[U8 | None]:
    """Yield each mask averaged with those before and after it in its shot, under a Gaussian window.

    masks   of all frames in order, uint8 of 0 to 255 and one shape; None where no face was seen
    shots   the frames [start, stop) of each, all in order
    sigma   of the window, in frames

    Masks that are all alike come out as they went in. Reads ahead by two `sigma`.
    """
    reach = max(1, round(_REACH * sigma))
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-9)) ** 2).astype(np.float32)
    source = iter(masks)
    for start, stop in shots:
        yield from _smooth_shot(islice(source, stop - start), window)


def _smooth_shot(masks: Iterable[U8 | None], window: F32) -> Iterator[U8 | None]:
    reach = len(window) // 2
    near: deque[U8 | None] = deque(maxlen=len(window))
    for mask in chain(repeat(None, reach), masks, repeat(None, reach)):
        near.append(mask)
        if len(near) == len(window):
            yield None if near[reach] is None else _average(near, window)


def _average(masks: Iterable[U8 | None], window: F32) -> U8:
    known = [(mask, weight) for mask, weight in zip(masks, window, strict=True) if mask is not None]
    total = np.zeros(known[0][0].shape, np.float32)
    for mask, weight in known:
        total += mask * weight
    return np.rint(total / sum(weight for _, weight in known)).astype(np.uint8)
