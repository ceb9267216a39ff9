"""The 68 points of a face: the box that they make, and whether they lie on the face that the detector found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BRIDGE, BRIDGE_ABOVE, NOSE_TIP = 29, 28, 30
"""The middle of the box, and its neighbours, which tell how far a shift makes sense."""

_NEAR = 0.25
_SIZES = (0.4, 2.5)


def has_box(detected: Floats) -> Flags:
    """(n,) which rows of (n, 4 or more) are boxes; NaN and -1 stand for none."""
    return np.isfinite(detected[:, :4]).all(1) & (detected[:, 2] > detected[:, 0]) & (detected[:, 3] > detected[:, 1])


def measure_boxes(points: Floats, shift: int) -> Floats:
    """(n, 4): the rule without its roundings and its clipping at the upper edge; NaN in, NaN out."""
    x, y = points[..., 0], points[..., 1]
    bottom = y.max(1)
    return np.stack([x.min(1), 2 * (y[:, BRIDGE] + shift) - bottom, x.max(1), bottom], 1)


def repair_landmarks(landmarks: Floats, detected: Floats, shift: int) -> tuple[Floats, Flags]:
    """Landmarks of each frame, and which frames show the face.

    Where they don't lie on the detected face, or make no box, the usual landmarks of this face are laid onto it: so the
    box doesn't jump to another size, as the detector's own would.
    """
    seen = has_box(detected)
    points = np.where(seen[:, None, None], landmarks, np.nan).astype(np.float64)
    corner, sides = detected[:, None, :2], (detected[:, 2:4] - detected[:, :2])[:, None]
    good = seen & is_on_face(points, detected, shift)
    with np.errstate(invalid="ignore", divide="ignore"):
        layout = np.median((points - corner)[good] / sides[good], 0) if good.any() else DEFAULT_LAYOUT
        laid = corner + layout * sides
    return np.where((seen & ~good)[:, None, None], laid, points), seen


def is_on_face(points: Floats, detected: Floats, shift: int) -> Flags:
    """(n,) whether the landmarks make a box, and one on the detected face: near its middle, of about its size."""
    low, high, box = points.min(1), points.max(1), measure_boxes(points, shift)
    sides = detected[:, 2:4] - detected[:, :2]
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.abs((low + high) / 2 - (detected[:, :2] + detected[:, 2:4]) / 2) / sides
        grown = (high - low) / sides
        fits = (off < 0.5 + _NEAR).all(1) & (grown > _SIZES[0]).all(1) & (grown < _SIZES[1]).all(1)
        return np.asarray(fits & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1]))


def _make_default_layout() -> Floats:
    """68 points in a box of side 1 to which the rule gives that same box."""
    turn = np.pi * np.arange(17) / 16
    jaw = np.stack([0.5 - 0.5 * np.cos(turn), 0.5 + 0.5 * np.sin(turn)], 1)
    return np.concatenate([jaw, np.full((51, 2), 0.5)])


DEFAULT_LAYOUT = _make_default_layout()


def measure_heights(points: Floats) -> Floats:
    return np.asarray(np.ptp(points[..., 1], 1), np.float64)


def find_shift_range(landmarks: Floats) -> tuple[int, int]:
    """Least and greatest bbox_shift that make sense; (0, 0) without any landmarks.

    As many pixels as the nose's tip lies below its middle, and as its bridge lies above.
    """
    if not len(landmarks):
        return 0, 0
    y = landmarks[:, [BRIDGE_ABOVE, BRIDGE, NOSE_TIP], 1].mean(0)
    return -round(float(y[2] - y[1])), round(float(y[1] - y[0]))
