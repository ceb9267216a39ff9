"""Paths of numbers made calm without making them late: what a head does stays, what the pixel grid does goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FOLLOW_S, REST_S = 0.08, 0.3
"""Standard deviations in seconds of the two windows: one that follows a head, one for a head at rest."""
_REACH = 3.0
_OUTLIER_WINDOW = 5
_HOLD = 0.75
_JITTER_ORDER = 4


def smooth_paths(paths: Floats, known: Flags, grain: float, rate: float) -> Floats:
    """(n, k) paths of one shot, smoothed symmetrically in time; samples that are not `known` (n,) have no weight.

    Each value is that of a parabola laid through its surroundings, so a steady or an evenly accelerated motion comes
    out as it went in. Where that parabola stays within about `grain` (the step in which the samples were measured)
    of a line laid through wider surroundings, the head rests, and the line is taken. `rate` in frames a second.
    """
    follow = fit_polynomials(paths, known, FOLLOW_S * rate, degree=2)
    rest = fit_polynomials(paths, known, REST_S * rate, degree=1)
    moving = np.clip(np.abs(follow - rest) / grain - 0.5, 0, 1)
    moving = widen_peaks(moving, max(1, round(FOLLOW_S * rate)))
    return rest + moving * (follow - rest)


def fit_polynomials(paths: Floats, known: Flags, sigma: float, *, degree: int) -> Floats:
    """Local polynomials by least squares under a Gaussian window, each evaluated in its middle.

    At the ends the window is cut, not mirrored. A window without enough samples gives what it has.
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


def correlate(path: Floats, window: Floats) -> Floats:
    """At each place the sum of the window's weights times the path around it; nothing lies beyond the ends."""
    reach = len(window) // 2
    return np.correlate(np.pad(path, reach), window, "valid")


def widen_peaks(values: Floats, reach: int) -> Floats:
    """The largest value within `reach` frames, then the mean over as many: no sudden changes in time."""
    windows: Any = np.lib.stride_tricks.sliding_window_view
    largest = windows(np.pad(values, ((reach, reach), (0, 0)), "edge"), 2 * reach + 1, 0).max(-1)
    return np.asarray(windows(np.pad(largest, ((reach, reach), (0, 0)), "edge"), 2 * reach + 1, 0).mean(-1), np.float64)


def replace_outliers(paths: Floats, known: Flags, tolerance: Floats) -> Floats:
    """(n, k) with single wrong finds, those that stray by more than `tolerance` (n,), laid onto the median of five."""
    numbers = np.flatnonzero(known)
    if len(numbers) < _OUTLIER_WINDOW:
        return paths
    clean = paths.copy()
    for number, path in enumerate(paths[numbers].T):
        middle = take_median_of_five(path)
        clean[numbers, number] = np.where(np.abs(path - middle) > tolerance[numbers], middle, path)
    return clean


def take_median_of_five(path: Floats) -> Floats:
    half = _OUTLIER_WINDOW // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(path, half, "edge"), _OUTLIER_WINDOW)
    return np.asarray(np.median(windows, -1), np.float64)


def round_steadily(path: Floats) -> npt.NDArray[np.int64]:
    """(n,) to whole numbers: one is kept until the path is more than 0.75 away, so that it can't flicker."""
    whole = np.empty(len(path), np.int64)
    last = round(float(path[0])) if len(path) else 0
    for number, value in enumerate(path.tolist()):
        if abs(value - last) > _HOLD:
            last = round(value)
        whole[number] = last
    return whole


def scale_fourth_differences(paths: Floats, known: Flags) -> Floats:
    """Of (n, k) paths of one shot the fourth differences, scaled so that noise of 1 px gives 1 px.

    A head's own motion, sway or nod, gives next to nothing. Fewer than five frames, or five with a gap, give nothing.
    """
    if len(paths) <= _JITTER_ORDER:
        return np.empty((0, paths.shape[1]))
    inside = np.lib.stride_tricks.sliding_window_view(known, _JITTER_ORDER + 1).all(1)
    return np.asarray(np.diff(paths, _JITTER_ORDER, axis=0)[inside] / np.sqrt(70.0), np.float64)
