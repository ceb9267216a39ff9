"""The 68 landmarks of a face: the box that they make, and whether they are on the face."""

from __future__ import annotations

import numpy as np

from models.arrays import F64, Bool, Floats

BRIDGE, BRIDGE_ABOVE, NOSE_TIP = 29, 28, 30
"""The landmark in the middle of the box, and its neighbours, from which follows how far a shift
makes sense."""

_MAX_OFFSET = 0.25
_SIZES = (0.4, 2.5)


def has_box(detected: Floats) -> Bool:
    """Return which rows of (n, 4 or more) are boxes, (n,); NaN and -1 stand for none."""
    return np.isfinite(detected[:, :4]).all(1) & (detected[:, 2] > detected[:, 0]) & (detected[:, 3] > detected[:, 1])


def measure_boxes(points: Floats, shift: int) -> F64:
    """Return the box of each face by MuseTalk's rule, (n, 4) pixels, from landmarks (n, 68, 2).

    Without the rule's roundings and its clipping at the upper edge. NaN gives NaN.
    """
    x, y = points[..., 0], points[..., 1]
    bottom = y.max(1)
    return np.stack([x.min(1), 2 * (y[:, BRIDGE] + shift) - bottom, x.max(1), bottom], 1)


def repair_landmarks(landmarks: Floats, detected: Floats, shift: int) -> tuple[F64, Bool]:
    """Return the landmarks of each frame, (n, 68, 2), and which frames show the face, (n,).

    Where landmarks don't lie on the detected face (n, 4 or more), or make no box, the usual
    landmarks of this face are fitted to it. So the box does not jump to another size, as the
    detector's own would.
    """
    seen = has_box(detected)
    points = np.where(seen[:, None, None], landmarks, np.nan).astype(np.float64)
    corner, sides = detected[:, None, :2], (detected[:, 2:4] - detected[:, :2])[:, None]
    good = seen & is_on_face(points, detected, shift)
    with np.errstate(invalid="ignore", divide="ignore"):
        layout = np.median((points - corner)[good] / sides[good], 0) if good.any() else DEFAULT_LAYOUT
        fitted = corner + layout * sides
    return np.where((seen & ~good)[:, None, None], fitted, points), seen


def is_on_face(points: Floats, detected: Floats, shift: int) -> Bool:
    """Return which landmarks fit the detected face, (n,).

    They make a box, near the middle of the detected face, and of about its size.
    """
    low, high, box = points.min(1), points.max(1), measure_boxes(points, shift)
    sides = detected[:, 2:4] - detected[:, :2]
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = np.abs((low + high) / 2 - (detected[:, :2] + detected[:, 2:4]) / 2) / sides
        size = (high - low) / sides
        fits = (offset < 0.5 + _MAX_OFFSET).all(1) & (size > _SIZES[0]).all(1) & (size < _SIZES[1]).all(1)
        return np.asarray(fits & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1]))


def _make_default_layout() -> F64:
    """Return 68 landmarks in a box of side 1 to which the rule gives that same box."""
    turn = np.pi * np.arange(17) / 16
    jaw = np.stack([0.5 - 0.5 * np.cos(turn), 0.5 + 0.5 * np.sin(turn)], 1)
    return np.concatenate([jaw, np.full((51, 2), 0.5)])


DEFAULT_LAYOUT = _make_default_layout()


def measure_heights(points: Floats) -> F64:
    """Return the height in pixels of each face, (n,), from landmarks (n, 68, 2)."""
    return np.asarray(np.ptp(points[..., 1], 1), np.float64)


def find_shift_range(landmarks: Floats) -> tuple[int, int]:
    """Return the least and the greatest bbox_shift that make sense, in pixels.

    (0, 0) without landmarks.

    As MuseTalk suggests them: from as far as the nose's tip lies below the bridge's middle to as
    far as its upper part lies above.
    """
    if not len(landmarks):
        return 0, 0
    y = landmarks[:, [BRIDGE_ABOVE, BRIDGE, NOSE_TIP], 1].mean(0)
    return -round(float(y[2] - y[1])), round(float(y[1] - y[0]))
