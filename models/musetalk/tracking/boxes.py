"""Where the inpainted square is in each frame: MuseTalk's rule, and boxes over time.

In the reference's way, boxes are those of the rule. In ours they are smoothed within each shot,
and may reach beyond the frame: a face at its edge keeps its box, and `crops.crop_padded` fills
what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.arrays import F64, I64, Array, Bool
from models.musetalk.geometry import Box, Size
from models.musetalk.tracking.intervals import Interval, find_jumps, find_nearest_seen, find_runs, split_at_cuts
from models.musetalk.tracking.landmarks import (
    BRIDGE,
    find_shift_range,
    has_box,
    measure_boxes,
    measure_heights,
    repair_landmarks,
)
from models.musetalk.tracking.smoothing import measure_tremor, replace_outliers, round_steadily, smooth_paths

_MIN_VISIBLE = 0.25
_OUTLIER_HEIGHTS = 0.15
_PATHS_AT_ONCE = 8


def make_reference_box(landmarks: F64, detected: Sequence[float] | F64 | None, shift: int) -> Box | None:
    """Return the box of a face by MuseTalk's rule, None without a detected face.

    landmarks   (68, 2) pixels
    detected    the detector's best box, (4 or more,); None or -1 without one
    shift       moves the top down by twice as many pixels, the bottom never

    Boxes may reach beyond the right and the lower edge. Where the rule gives no box, or one that
    begins left of the frame, it is the detector's.
    """
    if detected is None or detected[2] < 0:
        return None
    x, y = np.trunc(landmarks).astype(np.int64).T
    top = max(0, 2 * (int(y[BRIDGE]) + shift) - int(y.max()))
    box = (int(x.min()), top, int(x.max()), int(y.max()))
    return truncate_box(detected) if box[3] - box[1] <= 0 or box[2] - box[0] <= 0 or box[0] < 0 else box


def truncate_box(detected: Sequence[float] | F64) -> Box:
    """Return a detector's box in whole pixels, rounded towards 0, nothing below 0."""
    x1, y1, x2, y2 = (int(max(0.0, float(edge))) for edge in detected[:4])
    return x1, y1, x2, y2


@dataclass(frozen=True, slots=True)
class BoxTrack:
    """The boxes of n frames.

    boxes           (n, 4) int64; a frame without a face has the box of the nearest frame with one
    seen            (n,) whether the frame shows the face
    cuts            frames with which shots begin, or from which the face is suddenly elsewhere
    jitter_px       tremor of the boxes: noise of 1 px gives 1, a head's own motion next to nothing
    raw_jitter_px   tremor before smoothing
    shift_range     least and greatest bbox_shift that make sense for this face
    """

    boxes: I64
    seen: Bool
    cuts: tuple[int, ...] = ()
    jitter_px: float = 0.0
    raw_jitter_px: float = 0.0
    shift_range: tuple[int, int] = (0, 0)

    @property
    def gaps(self) -> tuple[Interval, ...]:
        """Intervals of frames without a face."""
        return tuple(find_runs(~self.seen))


def plan_reference_boxes(landmarks: F64, detected: F64, size: Size, *, shift: int = 0, margin: int = 0) -> BoxTrack:
    """Return the boxes of all frames by the rule alone, frame by frame.

    The arguments are those of `plan_boxes`.

    With a margin, as v1.5 has it, no box goes below the frame; without one, as in v1, boxes stay
    as they are.
    """
    pairs = zip(landmarks, detected, has_box(detected), strict=True)
    boxes = [make_reference_box(points, box if has_face else None, shift) for points, box, has_face in pairs]
    rows = np.array([box or (0, 0, 0, 0) for box in boxes], np.int64).reshape(-1, 4)
    seen = measure_visible_share(rows, size) > 0
    whole_video = [(0, len(seen))]
    raw = measure_jitter(rows, seen, whole_video)
    rows = rows[find_nearest_seen(seen, whole_video)] if seen.any() else rows
    if margin:
        rows[:, 3] = np.minimum(rows[:, 3] + margin, size[1])
    return BoxTrack(rows, seen, jitter_px=raw, raw_jitter_px=raw, shift_range=find_shift_range(landmarks[seen]))


def plan_boxes(
    landmarks: F64,
    detected: F64,
    size: Size,
    *,
    shift: int = 0,
    margin: int = 0,
    margin_share: float = 0.0,
    cuts: Sequence[int] = (),
    rate: float = 25.0,
    smooth: bool = True,
) -> BoxTrack:
    """Return the boxes of all frames, smoothed within each shot.

    landmarks   (n, 68, 2) pixels of one face; NaN where it was not seen
    detected    (n, 4 or more) x1, y1, x2, y2 of the same face; NaN or -1 where it was not seen
    size        width and height of the frames
    shift       pixels by which the middle of the box moves down
    margin      pixels that are added below
    margin_share  share of its height that each box grows by below, before it is rounded
    cuts        frames with which shots begin
    rate        frames a second
    smooth      if False, each box depends on its own frame alone
    """
    points, seen = repair_landmarks(landmarks, detected, shift)
    raw = measure_boxes(points, shift)
    seen &= measure_visible_share(raw, size) >= _MIN_VISIBLE
    if not seen.any():
        return BoxTrack(np.zeros((len(seen), 4), np.int64), seen, tuple(cuts))
    jumps = find_jumps(raw, seen, list(split_at_cuts(len(seen), cuts)))
    shots = list(split_at_cuts(len(seen), sorted({*cuts, *jumps})))
    points = smooth_landmarks(points, seen, shots, size, rate) if smooth else np.trunc(points) + 0.5
    points = points[find_nearest_seen(seen, shots)]
    tall = extend_boxes(measure_boxes(points - 0.5, shift), margin_share)
    boxes = np.concatenate([round_boxes(tall[start:stop]) for start, stop in shots])
    seen &= measure_visible_share(boxes, size) > 0
    return BoxTrack(
        boxes[find_nearest_seen(seen, shots)] + np.array([0, 0, 0, margin]) if seen.any() else np.zeros_like(boxes),
        seen,
        tuple(start for start, _ in shots[1:]),
        measure_jitter(boxes, seen, shots),
        measure_jitter(raw, seen, shots),
        find_shift_range(points[seen]),
    )


def measure_visible_share(boxes: Array, size: Size) -> F64:
    """Return which part of each box (n, 4) lies in the frame, (n,).

    0 for NaN and for a box turned inside out.
    """
    inside = np.clip(boxes, 0, [*size, *size])
    sides = np.fmax(boxes[:, 2:] - boxes[:, :2], 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.prod(inside[:, 2:] - inside[:, :2], 1) / np.prod(sides, 1)
    return np.where(np.prod(sides, 1) > 0, share, 0.0)


def pose_grid_px(size: Size) -> float:
    """Return the step in pixels in which the pose net places landmarks in a whole frame."""
    width, height = size
    return 1.25 * max(width, 0.75 * height) / 576


def smooth_landmarks(points: F64, seen: Bool, shots: Sequence[Interval], size: Size, rate: float) -> F64:
    """Return landmarks (n, 68, 2) smoothed within each shot.

    In a shot with a single seen frame they are moved to the middles of their pixels.
    """
    paths = points.reshape(len(points), -1)
    smoothed = paths.copy()
    for start, stop in shots:
        known = seen[start:stop]
        if known.sum() == 1:
            smoothed[start:stop] = np.trunc(paths[start:stop]) + 0.5
        elif known.any():
            tolerance_px = _OUTLIER_HEIGHTS * measure_heights(points[start:stop])
            for first in range(0, paths.shape[1], _PATHS_AT_ONCE):
                some = slice(first, first + _PATHS_AT_ONCE)
                steady = replace_outliers(paths[start:stop, some], known, tolerance_px)
                smoothed[start:stop, some] = smooth_paths(steady, known, pose_grid_px(size), rate)
    return smoothed.reshape(points.shape)


def extend_boxes(boxes: F64, share: float) -> F64:
    """Return the boxes (n, 4), of which each reaches down by a share of its height."""
    x1, y1, x2, y2 = boxes.T
    return np.stack([x1, y1, x2, y2 + share * (y2 - y1)], 1)


def round_boxes(boxes: F64) -> I64:
    """Return the boxes (n, 4) of one shot in whole pixels.

    Corner and sides are rounded apart, so that the size can't flicker.
    """
    x, y, width, height = (round_steadily(path) for path in (*boxes[:, :2].T, *(boxes[:, 2:] - boxes[:, :2]).T))
    return np.stack([x, y, x + width.clip(2), y + height.clip(2)], 1)


def measure_jitter(boxes: Array, seen: Bool, shots: Sequence[Interval]) -> float:
    """Return the root mean square tremor of the boxes' edges in pixels; 0 for a still."""
    tremor = np.concatenate([measure_tremor(boxes[start:stop], seen[start:stop]) for start, stop in shots])
    return float(np.sqrt(np.mean(tremor**2))) if len(tremor) else 0.0
