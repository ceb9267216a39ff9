"""Where the painted square lies in each frame: MuseTalk's rule from landmarks to a box, and its boxes over time.

Boxes are x1, y1, x2, y2 in whole pixels, ends exclusive. In the reference's way they stand as the rule gives them. In
ours they are calm, follow each shot by itself, and may reach beyond the picture: a face at its edge keeps its box, and
`faces.padded_crop` fills what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from models.musetalk.smoothing import calmed, held, jitter, without_outliers

Box = tuple[int, int, int, int]
Size = tuple[int, int]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BRIDGE, BRIDGE_ABOVE, NOSE_TIP = 29, 28, 30
"""Of 68 points: the middle of the box, and its neighbours, which tell how far a shift makes sense."""

MARGIN_V15 = 10

_LEAST_VISIBLE = 0.25
_STRAY = 0.15
_JUMP, _JUMP_SUDDEN = 0.25, 4.0
_NEAR = 0.25
_SIZES = (0.4, 2.5)


def box_of(landmarks: Floats, detected: Sequence[float] | None, shift: int, size: Size) -> Box | None:
    """MuseTalk's rule. `landmarks` (68, 2) pixels, `detected` the detector's best box, None or -1 without one.

    `shift` moves the top by twice as many pixels down, the bottom never. The size of the frame (width, height) has no
    part in it: boxes may reach beyond the right and lower edge. Where the rule gives no box, or one that begins left
    of the picture, it is the detector's.
    """
    del size
    if detected is None or detected[2] < 0:
        return None
    x, y = np.trunc(landmarks).astype(np.int64).T
    top = max(0, 2 * (int(y[BRIDGE]) + shift) - int(y.max()))
    box = (int(x.min()), top, int(x.max()), int(y.max()))
    return whole(detected) if box[3] - box[1] <= 0 or box[2] - box[0] <= 0 or box[0] < 0 else box


def whole(detected: Sequence[float]) -> Box:
    """A detector's box in whole pixels as the reference cuts it: nothing below 0, the rest towards 0."""
    x1, y1, x2, y2 = (int(max(0.0, float(edge))) for edge in detected[:4])
    return x1, y1, x2, y2


def with_margin(box: Box, margin: int, height: int) -> Box:
    """The box with some pixels below the chin, at most to the lower edge of the picture: v1.5 has 10."""
    return box[0], box[1], box[2], min(box[3] + margin, height)


@dataclass(frozen=True, slots=True)
class BoxTrack:
    """Boxes of all frames, in step with them.

    boxes           (n, 4) int64; a frame without a face has that of the nearest frame with one
    seen            (n,) whether a face was seen
    cuts            frames with which a shot begins, or where the face is at once elsewhere
    landmarks       (n, 68, 2) in pixels, as calm as the boxes; None in the reference's way
    jitter_px       how much the boxes still tremble: noise of 1 px gives 1, a head's own motion next to nothing
    raw_jitter_px   how much they did before
    shift_range     the values of bbox_shift that make sense for this face
    """

    boxes: npt.NDArray[np.int64]
    seen: Flags
    cuts: tuple[int, ...] = ()
    landmarks: Floats | None = field(default=None, repr=False)
    jitter_px: float = 0.0
    raw_jitter_px: float = 0.0
    shift_range: tuple[int, int] = (0, 0)

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """Ranges (start, stop) of frames without a face."""
        return tuple(ranges(~self.seen))


def reference_boxes(landmarks: Floats, detected: Floats, size: Size, *, shift: int = 0, margin: int = 0) -> BoxTrack:
    """Boxes for all frames by the rule alone; arguments as for `plan_boxes`. Each frame stands for itself."""
    seen = found(detected)
    pairs = zip(landmarks, detected, strict=True)
    boxes = [box_of(points, box if ok else None, shift, size) for (points, box), ok in zip(pairs, seen, strict=True)]
    rows = np.array([with_margin(box, margin, size[1]) if box else (0, 0, 0, 0) for box in boxes], np.int64)
    whole_video = [(0, len(seen))]
    raw = trembling(rows, seen, whole_video)
    rows = rows[nearest(seen, whole_video)] if seen.any() else rows
    return BoxTrack(rows, seen, jitter_px=raw, raw_jitter_px=raw, shift_range=shift_range(landmarks[seen]))


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
    points, seen = trusted(landmarks, detected, shift)
    raw = measured(points, shift)
    seen &= visible_share(raw, size) >= _LEAST_VISIBLE
    if not seen.any():
        return BoxTrack(np.zeros((len(seen), 4), np.int64), seen, tuple(cuts))
    shots = list(between(len(seen), sorted({*cuts, *jumps(raw, seen, list(between(len(seen), cuts)))})))
    calm = calm_points(points, seen, shots, size, rate) if smooth else np.trunc(points) + 0.5
    calm = calm[nearest(seen, shots)]
    boxes = np.concatenate([rounded(measured(calm[start:stop] - 0.5, shift)) for start, stop in shots])
    return BoxTrack(
        boxes + np.array([0, 0, 0, margin]),
        seen,
        tuple(start for start, _ in shots[1:]),
        calm,
        trembling(boxes, seen, shots),
        trembling(raw, seen, shots),
        shift_range(calm[seen]),
    )


def found(detected: Floats) -> Flags:
    """(n,) which rows of (n, 4 or more) are boxes; NaN and -1 stand for none."""
    return np.isfinite(detected[:, :4]).all(1) & (detected[:, 2] > detected[:, 0]) & (detected[:, 3] > detected[:, 1])


def measured(points: Floats, shift: int) -> Floats:
    """(n, 4): the rule without its roundings and its clipping at the upper edge; NaN in, NaN out."""
    x, y = points[..., 0], points[..., 1]
    bottom = y.max(1)
    return np.stack([x.min(1), 2 * (y[:, BRIDGE] + shift) - bottom, x.max(1), bottom], 1)


def trusted(landmarks: Floats, detected: Floats, shift: int) -> tuple[Floats, Flags]:
    """Landmarks of each frame, and which frames show the face.

    Where they don't lie on the detected face, or make no box, the usual landmarks of this face are laid onto it: so the
    box doesn't jump to another size, as the detector's own would.
    """
    seen = found(detected)
    points = np.where(seen[:, None, None], landmarks, np.nan).astype(np.float64)
    corner, sides = detected[:, None, :2], (detected[:, 2:4] - detected[:, :2])[:, None]
    good = seen & agreeing(points, detected, shift)
    with np.errstate(invalid="ignore", divide="ignore"):
        layout = np.median((points - corner)[good] / sides[good], 0) if good.any() else PLAIN_LAYOUT
        laid = corner + layout * sides
    return np.where((seen & ~good)[:, None, None], laid, points), seen


def agreeing(points: Floats, detected: Floats, shift: int) -> Flags:
    """(n,) whether the landmarks make a box, and one on the detected face: near its middle, of about its size."""
    low, high, box = points.min(1), points.max(1), measured(points, shift)
    sides = detected[:, 2:4] - detected[:, :2]
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.abs((low + high) / 2 - (detected[:, :2] + detected[:, 2:4]) / 2) / sides
        grown = (high - low) / sides
        fits = (off < 0.5 + _NEAR).all(1) & (grown > _SIZES[0]).all(1) & (grown < _SIZES[1]).all(1)
        return np.asarray(fits & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1]))


def _plain_layout() -> Floats:
    """68 points in a box of side 1 to which the rule gives that same box."""
    turn = np.pi * np.arange(17) / 16
    jaw = np.stack([0.5 - 0.5 * np.cos(turn), 0.5 + 0.5 * np.sin(turn)], 1)
    return np.concatenate([jaw, np.full((51, 2), 0.5)])


PLAIN_LAYOUT = _plain_layout()


def visible_share(boxes: Floats, size: Size) -> Floats:
    """(n,) which part of each box lies in the picture; 0 where there is none."""
    inside = np.clip(boxes, 0, [*size, *size])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.prod(inside[:, 2:] - inside[:, :2], 1) / np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    return np.nan_to_num(share)


def between(frames: int, cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The shots (start, stop) that `cuts` make of a video."""
    edges = [0, *(cut for cut in cuts if 0 < cut < frames), frames]
    yield from ((start, stop) for start, stop in pairwise(edges) if stop > start)


def ranges(flags: Flags) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of set flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def jumps(boxes: Floats, seen: Flags, shots: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Frames in which the face is at once elsewhere and stays there, though the picture was not seen to cut."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], 1).clip(1))
    for start, stop in shots:
        for a, b in ranges(seen[start:stop]):
            yield from (start + a + at for at in steps(middle[start + a : start + b], side[start + a : start + b]))


def steps(path: Floats, side: Floats) -> Iterator[int]:
    """Where (n, 2) leaps by a quarter of `side`, four times as far as it moves around there, and not back again."""
    moved = np.linalg.norm(np.diff(path, axis=0), axis=1)
    for number in np.flatnonzero(moved > _JUMP * side[1:]):
        around = np.concatenate([moved[max(0, number - 3) : number], moved[number + 1 : number + 4]])
        before, after = path[max(0, number - 2) : number + 1], path[number + 1 : number + 4]
        stays = np.linalg.norm(np.median(after, 0) - np.median(before, 0)) > 0.8 * moved[number]
        if stays and moved[number] > _JUMP_SUDDEN * (np.median(around) if len(around) else 0.0):
            yield int(number) + 1


def grain_px(size: Size) -> float:
    """Pixels from one place at which the pose net can put a point to the next, where it looks at the whole frame."""
    width, height = size
    return 1.25 * max(width, 0.75 * height) / 576


def calm_points(points: Floats, seen: Flags, shots: Sequence[tuple[int, int]], size: Size, rate: float) -> Floats:
    """(n, 68, 2) smoothed, each shot by itself; where there is nothing to smooth, the middles of their pixels."""
    paths = points.reshape(len(points), -1)
    calm = paths.copy()
    for start, stop in shots:
        known = seen[start:stop]
        if known.sum() == 1:
            calm[start:stop] = np.trunc(paths[start:stop]) + 0.5
        elif known.any():
            steady = without_outliers(paths[start:stop], known, _STRAY * heights(points[start:stop]))
            calm[start:stop] = calmed(steady, known, grain_px(size), rate)
    return calm.reshape(points.shape)


def heights(points: Floats) -> Floats:
    return np.asarray(np.ptp(points[..., 1], 1), np.float64)


def nearest(seen: Flags, shots: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """(n,) for each frame the nearest one in which the face was seen, of its own shot if there is one."""
    frames, known = np.arange(len(seen)), np.flatnonzero(seen)
    chosen = _nearest_of(frames, known)
    for start, stop in shots:
        inside = known[(known >= start) & (known < stop)]
        if len(inside):
            chosen[start:stop] = _nearest_of(frames[start:stop], inside)
    return chosen


def _nearest_of(frames: npt.NDArray[np.int64], known: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    after = np.searchsorted(known, frames).clip(0, len(known) - 1)
    before = (after - 1).clip(0)
    closer = np.abs(known[before] - frames) <= np.abs(known[after] - frames)
    return np.where(closer, known[before], known[after])


def rounded(boxes: Floats) -> npt.NDArray[np.int64]:
    """(n, 4) of one shot to whole pixels: corner and sides are held each by itself, so that the size can't flicker."""
    x, y, width, height = (held(path) for path in (*boxes[:, :2].T, *(boxes[:, 2:] - boxes[:, :2]).T))
    return np.stack([x, y, x + width.clip(2), y + height.clip(2)], 1)


def trembling(boxes: npt.NDArray[Any], seen: Flags, shots: Sequence[tuple[int, int]]) -> float:
    """Root mean square of the jitter of the boxes' edges inside the shots, in pixels; 0 for a still."""
    told = np.concatenate([jitter(boxes[start:stop], seen[start:stop]) for start, stop in shots])
    return float(np.sqrt(np.mean(told**2))) if len(told) else 0.0


def shift_range(landmarks: Floats) -> tuple[int, int]:
    """Least and greatest bbox_shift that make sense; (0, 0) without any landmarks.

    As many pixels as the nose's tip lies below its middle, and as its bridge lies above.
    """
    if not len(landmarks):
        return 0, 0
    y = landmarks[:, [BRIDGE_ABOVE, BRIDGE, NOSE_TIP], 1].mean(0)
    return -round(float(y[2] - y[1])), round(float(y[1] - y[0]))
