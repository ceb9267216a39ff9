"""Where the painted square lies in each frame: MuseTalk's rule from landmarks to a box, and its boxes over time.

Boxes are x1, y1, x2, y2 in whole pixels, ends exclusive. In the reference's way they stand as the rule gives them. In
ours they are calm, follow each shot by itself, and may reach beyond the picture: a face at its edge keeps its box, and
`faces.padded_crop` fills what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.musetalk.tracking.intervals import Interval, find_jumps, find_nearest_seen, find_runs, split_at_cuts
from models.musetalk.tracking.landmarks import (
    BRIDGE,
    find_shift_range,
    has_box,
    measure_boxes,
    measure_heights,
    repair_landmarks,
)
from models.musetalk.tracking.smoothing import replace_outliers, round_steadily, scale_fourth_differences, smooth_paths

Box = tuple[int, int, int, int]
Size = tuple[int, int]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_LEAST_VISIBLE = 0.25
_STRAY = 0.15
_AT_ONCE = 8


def make_reference_box(landmarks: Floats, detected: Sequence[float] | None, shift: int) -> Box | None:
    """MuseTalk's rule. `landmarks` (68, 2) pixels, `detected` the detector's best box, None or -1 without one.

    `shift` moves the top by twice as many pixels down, the bottom never. Boxes may reach beyond the right and
    lower edge. Where the rule gives no box, or one that begins left of the picture, it is the detector's.
    """
    if detected is None or detected[2] < 0:
        return None
    x, y = np.trunc(landmarks).astype(np.int64).T
    top = max(0, 2 * (int(y[BRIDGE]) + shift) - int(y.max()))
    box = (int(x.min()), top, int(x.max()), int(y.max()))
    return truncate_box(detected) if box[3] - box[1] <= 0 or box[2] - box[0] <= 0 or box[0] < 0 else box


def truncate_box(detected: Sequence[float]) -> Box:
    """A detector's box in whole pixels as the reference cuts it: nothing below 0, the rest towards 0."""
    x1, y1, x2, y2 = (int(max(0.0, float(edge))) for edge in detected[:4])
    return x1, y1, x2, y2


@dataclass(frozen=True, slots=True)
class BoxTrack:
    """Boxes of all frames, in step with them.

    boxes           (n, 4) int64; a frame without a face has that of the nearest frame with one
    seen            (n,) whether a face was seen
    cuts            frames with which a shot begins, or where the face is at once elsewhere
    jitter_px       how much the boxes still tremble: noise of 1 px gives 1, a head's own motion next to nothing
    raw_jitter_px   how much they did before
    shift_range     the values of bbox_shift that make sense for this face
    """

    boxes: npt.NDArray[np.int64]
    seen: Flags
    cuts: tuple[int, ...] = ()
    jitter_px: float = 0.0
    raw_jitter_px: float = 0.0
    shift_range: tuple[int, int] = (0, 0)

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """Ranges (start, stop) of frames without a face."""
        return tuple(find_runs(~self.seen))


def plan_reference_boxes(
    landmarks: Floats, detected: Floats, size: Size, *, shift: int = 0, margin: int = 0
) -> BoxTrack:
    """Boxes for all frames by the rule alone; arguments as for `plan_boxes`. Each frame stands for itself.

    With a margin, as v1.5 has it, no box goes below the picture; without one, as in v1, boxes stay as they are.
    """
    pairs = zip(landmarks, detected, has_box(detected), strict=True)
    boxes = [make_reference_box(points, box if there else None, shift) for points, box, there in pairs]
    rows = np.array([box or (0, 0, 0, 0) for box in boxes], np.int64).reshape(-1, 4)
    seen = measure_visible_share(rows, size) > 0
    whole_video = [(0, len(seen))]
    raw = measure_jitter(rows, seen, whole_video)
    rows = rows[find_nearest_seen(seen, whole_video)] if seen.any() else rows
    if margin:
        rows[:, 3] = np.minimum(rows[:, 3] + margin, size[1])
    return BoxTrack(rows, seen, jitter_px=raw, raw_jitter_px=raw, shift_range=find_shift_range(landmarks[seen]))


def plan_boxes(
    landmarks: Floats,
    detected: Floats,
    size: Size,
    *,
    shift: int = 0,
    margin: int = 0,
    cuts: Sequence[int] = (),
    rate: float = 25.0,
    smooth: bool = True,
) -> BoxTrack:
    """Boxes for all frames, our way. `size` is (width, height), `rate` in frames a second, `margin` pixels more below.

    `landmarks` (n, 68, 2) and `detected` (n, 4 or more) belong to one face; rows of NaN or -1 where it was not seen.
    `cuts` are the frames with which shots begin. Without `smooth`, each box is its own frame's.
    """
    points, seen = repair_landmarks(landmarks, detected, shift)
    raw = measure_boxes(points, shift)
    seen &= measure_visible_share(raw, size) >= _LEAST_VISIBLE
    if not seen.any():
        return BoxTrack(np.zeros((len(seen), 4), np.int64), seen, tuple(cuts))
    shots = list(
        split_at_cuts(len(seen), sorted({*cuts, *find_jumps(raw, seen, list(split_at_cuts(len(seen), cuts)))}))
    )
    calm = smooth_landmarks(points, seen, shots, size, rate) if smooth else np.trunc(points) + 0.5
    calm = calm[find_nearest_seen(seen, shots)]
    boxes = np.concatenate([round_boxes(measure_boxes(calm[start:stop] - 0.5, shift)) for start, stop in shots])
    seen &= measure_visible_share(boxes, size) > 0
    return BoxTrack(
        boxes[find_nearest_seen(seen, shots)] + np.array([0, 0, 0, margin]) if seen.any() else np.zeros_like(boxes),
        seen,
        tuple(start for start, _ in shots[1:]),
        measure_jitter(boxes, seen, shots),
        measure_jitter(raw, seen, shots),
        find_shift_range(calm[seen]),
    )


def measure_visible_share(boxes: npt.NDArray[Any], size: Size) -> Floats:
    """(n,) which part of each box lies in the picture; 0 where there is no box, or one turned inside out."""
    inside = np.clip(boxes, 0, [*size, *size])
    sides = np.fmax(boxes[:, 2:] - boxes[:, :2], 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.prod(inside[:, 2:] - inside[:, :2], 1) / np.prod(sides, 1)
    return np.where(np.prod(sides, 1) > 0, share, 0.0)


def pose_grid_px(size: Size) -> float:
    """Pixels from one place at which the pose net can put a point to the next, where it looks at the whole frame."""
    width, height = size
    return 1.25 * max(width, 0.75 * height) / 576


def smooth_landmarks(points: Floats, seen: Flags, shots: Sequence[Interval], size: Size, rate: float) -> Floats:
    """(n, 68, 2) smoothed, each shot by itself; where there is nothing to smooth, the middles of their pixels."""
    paths = points.reshape(len(points), -1)
    calm = paths.copy()
    for start, stop in shots:
        known = seen[start:stop]
        if known.sum() == 1:
            calm[start:stop] = np.trunc(paths[start:stop]) + 0.5
        elif known.any():
            tolerance = _STRAY * measure_heights(points[start:stop])
            for first in range(0, paths.shape[1], _AT_ONCE):
                some = slice(first, first + _AT_ONCE)
                steady = replace_outliers(paths[start:stop, some], known, tolerance)
                calm[start:stop, some] = smooth_paths(steady, known, pose_grid_px(size), rate)
    return calm.reshape(points.shape)


def round_boxes(boxes: Floats) -> npt.NDArray[np.int64]:
    """(n, 4) of one shot to whole pixels: corner and sides are held each by itself, so that the size can't flicker."""
    x, y, width, height = (round_steadily(path) for path in (*boxes[:, :2].T, *(boxes[:, 2:] - boxes[:, :2]).T))
    return np.stack([x, y, x + width.clip(2), y + height.clip(2)], 1)


def measure_jitter(boxes: npt.NDArray[Any], seen: Flags, shots: Sequence[Interval]) -> float:
    """Root mean square of the jitter of the boxes' edges inside the shots, in pixels; 0 for a still."""
    told = np.concatenate([scale_fourth_differences(boxes[start:stop], seen[start:stop]) for start, stop in shots])
    return float(np.sqrt(np.mean(told**2))) if len(told) else 0.0
