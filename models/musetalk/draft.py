"""Drafts: of each face every second one is painted, and the others are averages of their neighbours. Pure.

Which ones are painted depends on the whole job alone, so a draft has the same bytes however it is cut into spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.arrays import F32, I64, U8, Bool


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """Which faces of a job are painted. The face of voice v in frame n has the number n * voices + v.

    keys     (k,) int64, ascending: the numbers of the faces that are painted
    partners (n, 2) int64: the keys that each face is the average of, as indices into `keys`; -1 where it isn't shown
    """

    keys: I64
    partners: I64

    def find_shown(self, faces: range) -> I64:
        """Return the numbers of the faces that are shown."""
        return faces.start + np.flatnonzero(self.partners[faces.start : faces.stop, 0] >= 0)

    def find_needed(self, shown: I64) -> range:
        """Return which keys, as indices, the faces of one span need."""
        pairs = self.partners[shown]
        return range(int(pairs.min()), int(pairs.max()) + 1) if len(shown) else range(0)


def plan_draft(voices: Sequence[tuple[Bool, I64]]) -> DraftPlan:
    """Choose what is painted of n frames.

    voices   of each voice which frames show its face, (n,), and a number of the shot of each, (n,)

    Even frames are painted, and odd ones that have no neighbour in their shot.
    """
    count, frames = len(voices), len(voices[0][0])
    is_key, neighbours = np.zeros((frames, count), np.bool_), np.full((frames, count, 2), -1, np.int64)
    for voice, (shown, shots) in enumerate(voices):
        numbers = np.arange(frames)
        before, after = _find_neighbours(shown, shots)
        is_key[:, voice] = shown & ((numbers % 2 == 0) | ~(before | after))
        first = np.where(is_key[:, voice], numbers, np.where(before, numbers - 1, numbers + 1))
        last = np.where(is_key[:, voice], numbers, np.where(after, numbers + 1, numbers - 1))
        neighbours[shown, voice] = np.stack([first, last], 1)[shown] * count + voice
    keys = np.flatnonzero(is_key.ravel())
    places = np.cumsum(is_key.ravel()) - 1
    flat = neighbours.reshape(-1, 2)
    return DraftPlan(keys, np.where(flat < 0, -1, places[flat]))


def _find_neighbours(shown: Bool, shots: I64) -> tuple[Bool, Bool]:
    """Return whether the frame before each one, and the one after it, shows the face in the same shot."""
    joined = shown[:-1] & shown[1:] & (shots[:-1] == shots[1:])
    return np.concatenate([[False], joined]), np.concatenate([joined, [False]])


def number_shots(source: I64, first: int, cuts: Sequence[int]) -> I64:
    """Return the number of the shot that each frame shows, (n,); `cuts` are counted from `first`."""
    return np.searchsorted(np.asarray(cuts, np.int64), source - first, "right")


def read_keys(keys: I64, read: Callable[[range], F32], reach: int) -> F32:
    """Return the rows of some numbers, one range after another; numbers up to `reach` apart share a range."""
    cuts = np.flatnonzero(np.diff(keys) > reach) + 1
    return np.concatenate([read(range(int(a[0]), int(a[-1]) + 1))[a - a[0]] for a in np.split(keys, cuts)])


def blend_faces(plan: DraftPlan, shown: I64, painted: Iterator[U8]) -> Iterator[U8]:
    """Yield the faces that are shown, (1, h, w, 3) uint8 each.

    painted   batches of the faces of `plan.find_needed(shown)`, in order
    """
    faces = (face for batch in painted for face in batch)
    kept: dict[int, U8] = {}
    pairs, upcoming = plan.partners[shown], plan.find_needed(shown).start
    oldest = np.minimum.accumulate(pairs.min(1)[::-1])[::-1]
    for (first, last), old in zip(pairs.tolist(), oldest.tolist(), strict=True):
        while upcoming <= max(first, last):
            kept[upcoming] = next(faces)
            upcoming += 1
        kept = {number: face for number, face in kept.items() if number >= old}
        yield _average(kept[first], kept[last])[None]


def _average(one: U8, other: U8) -> U8:
    """Return the mean of two faces, rounded up."""
    return one if one is other else ((one.astype(np.uint16) + other + 1) >> 1).astype(np.uint8)
