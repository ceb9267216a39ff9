"""Smoothing of paths without delay: motion of the head stays, tremor of the grid goes."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.arrays import F64, I64, Array, Bool

FOLLOW_S, REST_S = 0.08, 0.3
"""Standard deviations in seconds of the two windows: for a head that moves, and for a head at
rest."""
_REACH = 3.0
_OUTLIER_WINDOW = 5
_HOLD = 0.75
_JITTER_ORDER = 4


def smooth_paths(paths: F64, known: Bool, grain_px: float, rate: float) -> F64:
    """Return (n, k) paths of one shot, smoothed symmetrically in time.

    known      (n,); other samples have no weight
    grain_px   the step in which the samples were measured
    rate       frames a second

    Each value is that of a parabola fitted to its surroundings, so a steady or an evenly
    accelerated motion comes out as it went in. Where that parabola stays within about `grain_px`
    of a line fitted to wider surroundings, the head rests, and the line is taken.
    """
    follow = fit_polynomials(paths, known, FOLLOW_S * rate, degree=2)
    rest = fit_polynomials(paths, known, REST_S * rate, degree=1)
    moving = np.clip(np.abs(follow - rest) / grain_px - 0.5, 0, 1)
    moving = widen_peaks(moving, max(1, round(FOLLOW_S * rate)))
    return rest + moving * (follow - rest)


def fit_polynomials(paths: F64, known: Bool, sigma: float, *, degree: int) -> F64:
    """Return local polynomials, each evaluated in its middle: (n, k).

    They are fitted by least squares under a Gaussian window.

    `sigma` is in frames. At the ends the window is cut, not mirrored. A window with too few
    samples uses those it has.
    """
    reach = max(1, round(_REACH * sigma))
    time = np.arange(-reach, reach + 1) / max(sigma, 1e-9)
    window = np.exp(-0.5 * time**2)
    powers = [window * time**power for power in range(2 * degree + 1)]
    weight = known.astype(np.float64)
    moments = np.stack([correlate(weight, power) for power in powers], 1)
    normal = moments[:, np.add.outer(np.arange(degree + 1), np.arange(degree + 1))]
    sums = [[correlate(np.where(known, path, 0.0), powers[p]) for p in range(degree + 1)] for path in paths.T]
    right = np.stack([np.stack(row, 1) for row in sums], 2)
    ridge = 1e-9 * moments[:, :1, None] * np.eye(degree + 1) + 1e-12 * np.eye(degree + 1)
    return np.asarray(np.linalg.solve(normal + ridge, right)[:, 0], np.float64)


def correlate(path: F64, window: F64) -> F64:
    """Return the sum of the path around each place, weighted by the window, (n,).

    Beyond the ends there are zeros.
    """
    reach = len(window) // 2
    return np.correlate(np.pad(path, reach), window, "valid")


def widen_peaks(values: F64, reach: int) -> F64:
    """Return the largest value within `reach` frames, averaged over as many: (n, k).

    So it changes gradually.
    """
    windows: Any = np.lib.stride_tricks.sliding_window_view
    largest = windows(np.pad(values, ((reach, reach), (0, 0)), "edge"), 2 * reach + 1, 0).max(-1)
    return np.asarray(windows(np.pad(largest, ((reach, reach), (0, 0)), "edge"), 2 * reach + 1, 0).mean(-1), np.float64)


def replace_outliers(paths: F64, known: Bool, tolerance_px: F64) -> F64:
    """Return (n, k) paths in which known outliers are replaced by the median of five.

    An outlier strays from that median by over `tolerance_px` (n,).
    """
    numbers = np.flatnonzero(known)
    if len(numbers) < _OUTLIER_WINDOW:
        return paths
    clean = paths.copy()
    for number, path in enumerate(paths[numbers].T):
        middle = take_median_of_five(path)
        clean[numbers, number] = np.where(np.abs(path - middle) > tolerance_px[numbers], middle, path)
    return clean


def take_median_of_five(path: F64) -> F64:
    """Return the median of each sample (n,) and the two on either side; the ends are repeated."""
    half = _OUTLIER_WINDOW // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(path, half, "edge"), _OUTLIER_WINDOW)
    return np.asarray(np.median(windows, -1), np.float64)


def round_steadily(path: F64) -> I64:
    """Return (n,) whole numbers.

    One is kept until the path is over 0.75 away from it, so that it does not flicker.
    """
    rounded = np.empty(len(path), np.int64)
    last = round(float(path[0])) if len(path) else 0
    for number, value in enumerate(path.tolist()):
        if abs(value - last) > _HOLD:
            last = round(value)
        rounded[number] = last
    return rounded


def measure_tremor(paths: Array, known: Bool) -> F64:
    """Return the scaled fourth differences of (n, k) paths of one shot: (m, k).

    Noise of 1 px gives 1 px.

    A head's own motion gives next to nothing. Windows of five frames with a gap are left out, so m
    may be 0.
    """
    if len(paths) <= _JITTER_ORDER:
        return np.empty((0, paths.shape[1]))
    inside = np.lib.stride_tricks.sliding_window_view(known, _JITTER_ORDER + 1).all(1)
    return np.asarray(np.diff(paths, _JITTER_ORDER, axis=0)[inside] / np.sqrt(70.0), np.float64)
