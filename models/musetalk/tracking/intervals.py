"""Shots and gaps: the stretches of frames that a video falls into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Interval = tuple[int, int]
"""The frames [start, stop)."""

_JUMP, _JUMP_SUDDEN = 0.25, 4.0
_STAYS = 0.8


def split_at_cuts(frames: int, cuts: Sequence[int]) -> Iterator[Interval]:
    """The shots (start, stop) that `cuts` make of a video."""
    edges = [0, *(cut for cut in cuts if 0 < cut < frames), frames]
    yield from ((start, stop) for start, stop in pairwise(edges) if stop > start)


def find_runs(flags: Flags) -> Iterator[Interval]:
    """(start, stop) of each run of set flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def find_jumps(boxes: Floats, seen: Flags, shots: Sequence[Interval]) -> Iterator[int]:
    """Frames in which the face is at once elsewhere and stays there, though the picture was not seen to cut."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], 1).clip(1))
    for start, stop in shots:
        for a, b in find_runs(seen[start:stop]):
            yield from (start + a + at for at in find_steps(middle[start + a : start + b], side[start + a : start + b]))


def find_steps(path: Floats, side: Floats) -> Iterator[int]:
    """Where (n, 2) leaps by a quarter of `side`, four times as far as it moves around there, and not back again."""
    moved = np.linalg.norm(np.diff(path, axis=0), axis=1)
    for number in np.flatnonzero(moved > _JUMP * side[1:]):
        around = np.concatenate([moved[max(0, number - 3) : number], moved[number + 1 : number + 4]])
        before, after = path[max(0, number - 2) : number + 1], path[number + 1 : number + 4]
        stays = np.linalg.norm(np.median(after, 0) - np.median(before, 0)) > _STAYS * moved[number]
        if stays and moved[number] > _JUMP_SUDDEN * (np.median(around) if len(around) else 0.0):
            yield int(number) + 1


def find_nearest_seen(seen: Flags, shots: Sequence[Interval]) -> npt.NDArray[np.int64]:
    """(n,) for each frame the nearest one in which the face was seen, of its own shot if there is one."""
    frames, known = np.arange(len(seen)), np.flatnonzero(seen)
    chosen = _find_nearest(frames, known)
    for start, stop in shots:
        inside = known[(known >= start) & (known < stop)]
        if len(inside):
            chosen[start:stop] = _find_nearest(frames[start:stop], inside)
    return chosen


def _find_nearest(frames: npt.NDArray[np.int64], known: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    after = np.searchsorted(known, frames).clip(0, len(known) - 1)
    before = (after - 1).clip(0)
    closer = np.abs(known[before] - frames) <= np.abs(known[after] - frames)
    return np.where(closer, known[before], known[after])
