"""Intervals of frames: runs, shots, and the gaps in which no face was seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from models.arrays import F64, I64, Bool

Interval = tuple[int, int]
"""The frames [start, stop)."""

_JUMP, _JUMP_SUDDEN = 0.25, 4.0
_STAYS = 0.8


def split_at_cuts(frame_count: int, cuts: Sequence[int]) -> Iterator[Interval]:
    """Yield the shots of a video. `cuts`, ascending, are the frames with which shots begin."""
    edges = [0, *(cut for cut in cuts if 0 < cut < frame_count), frame_count]
    yield from ((start, stop) for start, stop in pairwise(edges) if stop > start)


def find_runs(flags: Bool) -> Iterator[Interval]:
    """Yield the interval of each run of set flags (n,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def find_jumps(boxes: F64, seen: Bool, shots: Sequence[Interval]) -> Iterator[int]:
    """Yield the frames from which the face is suddenly elsewhere, without a cut.

    boxes   (n, 4) x1, y1, x2, y2 in pixels
    seen    (n,) whether the frame shows the face
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], 1).clip(1))
    for start, stop in shots:
        for a, b in find_runs(seen[start:stop]):
            yield from (start + a + at for at in find_steps(middle[start + a : start + b], side[start + a : start + b]))


def find_steps(path: F64, side: F64) -> Iterator[int]:
    """Yield where a path (n, 2) steps by over a quarter of `side` (n,) and does not step back.

    Such a step is four times as far as the path moves in the three frames before it and after it.
    """
    moved = np.linalg.norm(np.diff(path, axis=0), axis=1)
    for number in np.flatnonzero(moved > _JUMP * side[1:]):
        around = np.concatenate([moved[max(0, number - 3) : number], moved[number + 1 : number + 4]])
        before, after = path[max(0, number - 2) : number + 1], path[number + 1 : number + 4]
        stays = np.linalg.norm(np.median(after, 0) - np.median(before, 0)) > _STAYS * moved[number]
        if stays and moved[number] > _JUMP_SUDDEN * (np.median(around) if len(around) else 0.0):
            yield int(number) + 1


def find_nearest_seen(seen: Bool, shots: Sequence[Interval]) -> I64:
    """Return, for each frame, the nearest frame that is `seen` (n,): (n,) int64.

    It is of the same shot, where the shot has one.
    """
    frames, known = np.arange(len(seen)), np.flatnonzero(seen)
    chosen = _find_nearest(frames, known)
    for start, stop in shots:
        inside = known[(known >= start) & (known < stop)]
        if len(inside):
            chosen[start:stop] = _find_nearest(frames[start:stop], inside)
    return chosen


def _find_nearest(frames: I64, known: I64) -> I64:
    after = np.searchsorted(known, frames).clip(0, len(known) - 1)
    before = (after - 1).clip(0)
    closer = np.abs(known[before] - frames) <= np.abs(known[after] - frames)
    return np.where(closer, known[before], known[after])
