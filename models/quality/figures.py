"""The figures of a result, from what the meter saw of its frames and from its sound. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from models.arrays import F64, U8, Bool, Floats
from models.quality.meter import Samples
from models.quality.trace import FaceTrace

_CUT = 0.15
"""A box that changes its speed by more, in widths of the face, belongs to another shot."""
_ORDER = 4
"""Differences of the edges from frame to frame are taken so often: what is left is not how a head moves."""
_LONGEST_LAG_S = 0.4
_SHORTEST_S = 1.0
_QUIET, _QUIET_S, _SETTLE_S = 0.02, 0.4, 0.2
_MOVING = 0.3
"""Share of its usual range by which the mouth moves in a stretch without a voice."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The quality of one face; None where a figure can't be measured. docs/quality.md explains each."""

    frames_measured: int
    sharpness: float | None
    drift: float | None
    jitter: float | None
    seam: float | None
    no_face: float
    sync: float | None
    lag_ms: float | None
    silent_motion: float | None


def summarise_face(trace: FaceTrace, samples: Samples, expected: Floats, rate: Fraction) -> Figures:
    """Return the figures of a face, the first of the samples, in all frames that follow its voice.

    expected   (n,) how far the sound lets one expect the mouth to be open, 0 to 1
    """
    seen = trace.seen & (samples.patches[0].reshape(len(trace.seen), -1).max(1) > 0)
    ratio = samples.mouths[0] / np.maximum(samples.uppers[0], 1e-6)
    spoken = np.where(expected > _QUIET, ratio, np.nan)  # a shut mouth has other details than one that speaks
    opening = measure_opening(samples.patches[0], seen, expected, seen)
    lag, sync = find_lag(opening, expected, seen, rate)
    moved = shift(expected, lag or 0.0)
    if sync is not None:  # what a mouth does in silence has a figure of its own
        sync = max(sync, correlate_spoken(samples.patches[0], seen, moved))
    return Figures(
        frames_measured=int(seen.sum()),
        sharpness=_round(measure_sharpness(spoken if np.isfinite(spoken).any() else ratio, rate)),
        drift=_round(measure_drift(spoken, rate)),
        jitter=_round(measure_jitter(trace)),
        seam=_round(_median(np.abs(samples.seams[0]))),
        no_face=round(float(1 - trace.seen.mean()), 4),
        sync=_round(sync),
        lag_ms=_round(None if lag is None else float(lag / rate * 1000), 0),
        silent_motion=_round(measure_silent_motion(opening, moved, seen, rate)),
    )


def merge_figures(of_faces: list[Figures]) -> dict[str, Any]:
    """Return the figures of a result: of several faces the worst of each."""
    worst = {"frames_measured": min, "sharpness": min, "drift": min, "sync": min}
    merged: dict[str, Any] = {}
    for name in asdict(of_faces[0]):
        values = [value for one in of_faces if (value := getattr(one, name)) is not None]
        choose = worst.get(name, lambda found: max(found, key=abs))
        merged[name] = choose(values) if values else None
    return merged


def measure_sharpness(ratio: F64, rate: Fraction) -> float | None:
    """Return the sharpness of the sharpest second, of many that of the sharpest tenth: others lack it by drift."""
    known = sorted(_list_seconds(ratio, rate))
    return known[-max(1, len(known) // 10)] if known else None


def measure_drift(ratio: F64, rate: Fraction) -> float | None:
    """Return the sharpness of the softest second as a share of that of the first second.

    `ratio` is NaN where nothing is said.
    """
    known = _list_seconds(ratio, rate)
    return min(known) / known[0] if len(known) > 1 and known[0] > 0 else None


def measure_jitter(trace: FaceTrace) -> float | None:
    """Return how much the edges of the painted box tremble, in percent of the width of the face.

    A movement of the head, steady or swinging, hardly counts, and no cut between shots.
    """
    x, y, w, h = trace.painted.T
    edges = np.stack([x, y, x + w, y + h], 1) / np.maximum(trace.faces[:, 2:3], 1)
    runs = len(edges) - _ORDER
    if runs < 1:
        return None
    turns = np.abs(np.diff(edges, 2, axis=0)).max(1) < _CUT
    there = np.all([trace.seen[at : at + runs] for at in range(_ORDER + 1)], 0)
    there &= np.all([turns[at : at + runs] for at in range(_ORDER - 1)], 0)
    trembles = np.diff(edges, _ORDER, axis=0)[there] ** 2 / math.comb(2 * _ORDER, _ORDER)
    return float(100 * np.sqrt(trembles.mean())) if len(trembles) else None


def correlate_spoken(patches: U8, seen: Bool, moved: F64) -> float:
    """Return how well a mouth follows what is expected of it at the time `moved` where somebody speaks."""
    spoken = seen & (moved > _QUIET)
    if not spoken.any():
        return 0.0
    opening = measure_opening(patches, seen, moved, spoken)
    return _correlate(opening, moved, spoken)


def measure_opening(patches: U8, seen: Bool, expected: Floats, among: Bool) -> F64:
    """Return (n,) how far the mouth differs from the closed one: that of the frames `among` these with least sound."""
    rows = patches.reshape(len(patches), -1).astype(np.float64)
    if not seen.any():
        return np.zeros(len(patches))
    quiet = among & (expected <= np.quantile(expected[among], 0.1))
    closed = np.median(rows[quiet], 0)
    away = rows - closed
    return np.where(seen, np.abs(away - away.mean(1, keepdims=True)).mean(1), 0.0)


def find_lag(opening: F64, expected: Floats, seen: Bool, rate: Fraction) -> tuple[float | None, float | None]:
    """Return by how many frames the mouth follows the sound, and how well it does then: a correlation.

    None where the sound or the mouth says nothing.
    """
    longest = round(_LONGEST_LAG_S * rate)
    if seen.sum() < max(2 * longest, _SHORTEST_S * rate) or np.std(expected[seen]) < 0.02:
        return None, None
    lags = range(-longest, longest + 1)
    found = np.array([_correlate(opening, shift(expected, lag), seen) for lag in lags])
    best = int(found.argmax())
    part = 0.0
    if 0 < best < len(found) - 1:
        before, at, after = found[best - 1 : best + 2]
        bend = before - 2 * at + after
        part = float((before - after) / (2 * bend)) if bend < 0 else 0.0
    return best - longest + part, float(found[best])


def shift(values: Floats, frames: float) -> F64:
    """Return the values `frames` later."""
    at = np.arange(len(values), dtype=np.float64)
    return np.interp(at - frames, at, values)


def find_heard(expected: Floats, rate: Fraction) -> Bool:
    """Return which frames have a voice, or one just before or after them."""
    reach = round(_SETTLE_S * rate)
    return np.asarray(np.convolve(expected > _QUIET, np.ones(2 * reach + 1))[reach : reach + len(expected)] > 0.5)


def measure_silent_motion(opening: F64, expected: F64, seen: Bool, rate: Fraction) -> float | None:
    """Return the share of frames without a voice in which the mouth moves; None where the voice has no pause."""
    quiet = seen & ~find_heard(expected, rate)
    if quiet.sum() < _QUIET_S * rate or not (seen & ~quiet).any():
        return None
    low, high = np.quantile(opening[seen], (0.05, 0.95))
    rest = np.quantile(opening[quiet], 0.1)  # a mouth that never rests has no usual place
    return float((np.abs(opening[quiet] - rest) > _MOVING * max(high - low, 1e-6)).mean()) if high > low else 0.0


def _list_seconds(values: F64, rate: Fraction) -> list[float]:
    """Return the median of each second in which something is known; the last may be a half."""
    length = max(1, round(rate))
    starts = [at for at in range(0, len(values), length) if not at or at + length // 2 < len(values)]
    medians = (_median(values[at : at + length]) for at in starts)
    return [median for median in medians if median is not None]


def _correlate(one: F64, other: F64, seen: Bool) -> float:
    a, b = one[seen], other[seen]
    spread = float(np.std(a) * np.std(b))
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 1e-9 else 0.0


def _median(values: F64) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _round(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits) + 0.0
