"""Follow a face through a video: detect it, track its skin, detect it again where it was lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from models.arrays import F64, I64, U8, Bool
from models.preview.face import Face, find_face_near, make_face
from models.preview.geometry import UNIT, transform_points
from models.preview.landmarks import LIPS, fit_landmarks

LOST = 0.0
"""Likeness below which the flow has led to something else, or something hides the face."""
NUDGE = 0.12
"""Share of the distance to the fitted eyes that tracked eyes move in each frame."""
LARGEST_STEP = 0.04
"""The largest such movement, in eye distances: a blink doesn't pull the eyes away."""
FADE_FRAMES = 5
SEARCH_EVERY = 5
"""A face that is lost is searched in the whole picture at every so many frames: it costs as much as fifty steps."""
FEWEST_POINTS = 12
DETAIL_PX = 1.5
_EDGE = 8.0
"""Pixels beside the face that corners of its skin need."""
FARTHEST_MOUTH = 30.0
"""The farthest that a mouth moves in a turning head, in face units, which shrink with the distance of its eyes."""
AWAY = 0.5
"""What a mouth away from its usual place costs in the choice of the reference, against one that is open so far."""
BLURRED = 20.0
"""What a mouth without any detail costs there."""
STEADY_FRAMES, STEADY_MOUTH_FRAMES = 0.5, 0.7
"""Standard deviations in frames of the averages over the places of the eyes and of the mouth in the face: longer ones
lag behind a quick head, which differs from frame to frame more than the landmarks err."""
CUT_CHANGE = 0.2
"""Median change of a picture, in its own contrasts, above which there is a cut if the flow is lost as well.
It was 0.26 to 1.2 between pictures of two videos, 0.38 to 0.6 at cuts, at most 0.12 where a head turned quickly."""
CUT_SIZE = (16, 16)
"""Pixels of the copy in which it is measured."""
FLAT = 2.0
"""Contrast below which that copy is as good as black."""
SHORTEST_SHOT = 5
"""Frames with a face that a shot between cuts needs: one that is shorter stays as it is."""
MOST_SHOTS = 200
"""Shots with a face that get a reference, of half a megabyte each; further ones stay as they are."""

Finder = Callable[[U8], Face | None]
"""Searches a whole picture for the face."""


@dataclass(frozen=True, slots=True)
class Track:
    """eyes (n, 2, 2): left and right, x and y in pixels. weight (n,): 0 without a face.

    mouth (n, 2): the middle between the corners of the mouth, in face units.
    gap (n,): the distance of the lips in face units, infinite without a face.
    detail (n,): the fine detail of the lips, as a share of their contrast.
    shots (n,): the number of the shot, from 0 on; a shot begins at a cut, and each has a reference of its own.
    """

    eyes: F64
    weight: F64
    mouth: F64
    gap: F64
    detail: F64
    shots: I64

    @classmethod
    def of_still(cls, face: Face, frames: int) -> Track:
        """Return the track of a face that doesn't move for so many frames."""
        return cls(
            np.array([face.eyes] * frames),
            np.ones(frames),
            np.tile(measure_lips(face)[:2], (frames, 1)),
            np.zeros(frames),
            np.ones(frames),
            np.zeros(frames, np.int64),
        )

    def choose_references(self) -> list[int]:
        """Return the reference frame of each shot, in which the mouth is most closed, for some frames at best, and near
        its usual place: not pulled aside, in a head that isn't turned. It is no less clear than usual."""
        return [self._choose_reference(np.flatnonzero(self.shots == shot)) for shot in range(self.shots.max() + 1)]

    def _choose_reference(self, shot: I64) -> int:
        gap, mouth, detail = self.gap[shot], self.mouth[shot], self.detail[shot]
        known = np.isfinite(gap)
        if not known.any():
            return int(shot[0])
        away = np.hypot(*(mouth - np.median(mouth[known], 0)).T)
        blurred = np.clip(1 - detail / max(1e-6, float(np.median(detail[known]))), 0, 1)
        cost = smooth(np.where(known, gap, 1e3), 1.0) + AWAY * away + BLURRED * blurred
        return int(shot[np.where(known, cost, np.inf).argmin()])

    def place_at_mouth(self, *references: Face) -> F64:
        """Return the eyes (n, 2, 2), moved so that the mouth of the face in the reference frame of its shot is where
        it is seen in each frame: heads turn.

        It is measured against that face itself: its averaged place in the reference frame would be wrong in all
        frames by what the average lags there.
        """
        usual = np.array([measure_lips(reference)[:2] for reference in references])[self.shots]
        moved = np.clip(self.mouth - usual, -FARTHEST_MOUTH, FARTHEST_MOUTH) / UNIT
        across = self.eyes[:, 1] - self.eyes[:, 0]
        down = np.stack([-across[:, 1], across[:, 0]], -1)
        return np.asarray(self.eyes + (moved[:, :1] * across + moved[:, 1:] * down)[:, None])


def follow_face(frames: Iterator[U8], find: Finder, progress: Callable[[int], None]) -> Track:
    """Follow the face that `find` returns through all frames, (h, w, 3) uint8 BGR each.

    After a cut, also one over black frames, it is searched as in the first frame.
    """
    seen, mouths, cuts = list[F64](), list[F64](), list[bool]()
    before: tuple[U8, F64] | None = None
    last: U8 | None = None
    missing, cut = 0, -SEARCH_EVERY
    for number, frame in enumerate(frames):
        grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8)
        moved = before and move_eyes(before[0], grey, before[1])
        cuts.append(moved is None and last is not None and is_cut(last, grey))
        face = follow_eyes(frame, before[1], moved) if before and not cuts[-1] else None
        if cuts[-1] and number - cut >= SEARCH_EVERY:
            missing, cut = 0, number
        if face is None and missing % SEARCH_EVERY == 0:
            face = find(frame)
        missing = 0 if face else missing + 1
        before = (grey, np.array(face.eyes)) if face else None
        if face or shrink(grey) is not None:
            last = grey
        seen.append(before[1] if before else np.full((2, 2), np.nan))
        mouths.append(np.array([*measure_lips(face), measure_detail(grey, face)]) if face else np.full(4, np.nan))
        progress(number + 1)
    return make_track(np.array(seen), np.array(mouths), np.cumsum(cuts))


def make_track(eyes: F64, mouth: F64, shots: I64) -> Track:
    """Return the track of what was seen, NaN where nothing was: the eyes (n, 2, 2), and (n, 4) x, y and gap of the
    mouth and its detail; `shots` (n,) ascend.

    Nothing is averaged across a cut. Shots with hardly a face, and those after the first `MOST_SHOTS`, have no
    reference and no weight.
    """
    has_face = np.isfinite(mouth[:, 2])
    parts = np.split(np.arange(len(shots)), np.flatnonzero(np.diff(shots)) + 1)
    kept = 0
    for part in parts[: len(parts) if len(parts) > 1 else 0]:
        is_kept = has_face[part].sum() >= SHORTEST_SHOT and kept < MOST_SHOTS
        has_face[part] &= is_kept
        kept += is_kept
    path, moved = fill_gaps(eyes, has_face), fill_gaps(mouth[:, :2], has_face)
    gap, detail = np.where(has_face, mouth[:, 2], np.inf), np.where(has_face, mouth[:, 3], 0.0)
    weight, numbers, used = np.zeros(len(shots)), np.zeros(len(shots), np.int64), 0
    for part in parts:
        if (known := has_face[part]).any():
            path[part] = smooth(fill_gaps(path[part], known), STEADY_FRAMES)
            moved[part] = smooth(fill_gaps(moved[part], known), STEADY_MOUTH_FRAMES)
            weight[part], used = compute_weights(known), used + 1
        numbers[part] = max(0, used - 1)
    return Track(path, weight, moved, gap, detail, numbers)


def is_cut(before: U8, now: U8) -> bool:
    """Whether two frames in grey show different pictures, whatever their light: not if something moves in them."""
    one, other = shrink(before), shrink(now)
    return one is not None and other is not None and float(np.median(np.abs(one - other))) > CUT_CHANGE


def shrink(grey: U8) -> F64 | None:
    """Return a small copy with mean 0 and deviation 1, None for a picture without any contrast."""
    small = np.asarray(cv2.resize(grey, CUT_SIZE, interpolation=cv2.INTER_AREA), np.float64)
    contrast = float(small.std())
    return (small - small.mean()) / contrast if contrast > FLAT else None


def follow_eyes(frame: U8, eyes: F64, moved: F64 | None) -> Face | None:
    """Return the face in `frame`, or None where it is lost; `eyes` are those of the last frame, `moved` where the
    optical flow leads them, None where it is lost.

    What is fitted there corrects them gently, so that neither drifts nor blinks count. Where the flow is lost or leads
    to what is no face, the face is searched near its last place.
    """
    if moved is None:
        return find_face_near(frame, eyes)
    fitted = fit_landmarks(frame, moved)
    if fitted.likeness < LOST:
        return find_face_near(frame, eyes)
    if fitted.likeness > 0:
        farthest = LARGEST_STEP * float(np.hypot(*(moved[1] - moved[0])))
        moved = moved + NUDGE * np.clip(fitted.eyes - moved, -farthest, farthest)
    return make_face(moved, fitted)


def measure_lips(face: Face) -> F64:
    """Return x and y of the middle between the corners of the mouth, and the distance of the lips,
    in face units."""
    left, right, _, top, bottom, _ = face.upright_points[LIPS]
    return np.array([*(left + right) / 2, face.landmarks.opening * max(1.0, bottom[1] - top[1])])


def measure_detail(grey: U8, face: Face) -> float:
    """Return the fine detail of the lips as a share of their contrast."""
    lips = face.landmarks.points[LIPS]
    reach = 0.15 * face.eye_distance
    left, top = np.maximum(lips.min(0) - reach, 0).astype(int)
    right, bottom = np.maximum(lips.max(0) + reach, 0).astype(int)
    part = grey[top:bottom, left:right]
    if not part.size:
        return 0.0
    return float(cv2.absdiff(part, cv2.GaussianBlur(part, (0, 0), DETAIL_PX)).mean()) / max(1.0, float(part.std()))


def move_eyes(before: U8, now: U8, eyes: F64) -> F64 | None:
    """Track the eyes, (2, 2) x and y, from one grey frame to the next; None where the face is
    lost.

    Points of the mouth and the lids are left out, because they move by themselves.
    """
    middle, distance = eyes.mean(0), float(np.hypot(*(eyes[1] - eyes[0])))
    reach = np.array([0.95, 0.6]) * distance
    corner, end = np.maximum(middle - reach - _EDGE, 0).astype(int), (middle + reach + _EDGE).astype(int)
    part = before[corner[1] : end[1], corner[0] : end[0]]
    if not part.size:
        return None
    mask = np.zeros_like(part)
    centre = [round(value) for value in (middle - corner).tolist()]
    cv2.ellipse(mask, centre, [round(value) for value in reach.tolist()], 0, 0, 360, 255, -1)
    for x, y in (eyes - corner).tolist():
        cv2.circle(mask, (round(x), round(y)), round(0.24 * distance), 0, -1)
    points = cv2.goodFeaturesToTrack(part, 120, 0.01, max(2.0, distance / 25), mask=mask)
    if points is None or len(points) < FEWEST_POINTS:
        return None
    points = points + corner.astype(np.float32)
    start: Any = np.asarray(points, np.float32)
    found, status, _ = cv2.calcOpticalFlowPyrLK(before, now, start, start.copy(), winSize=(21, 21), maxLevel=3)
    kept = status.ravel() == 1
    if kept.sum() < FEWEST_POINTS:
        return None
    affine, inliers = cv2.estimateAffinePartial2D(points[kept], found[kept], ransacReprojThreshold=1.5)
    if affine is None or inliers.sum() < max(FEWEST_POINTS, 0.5 * kept.sum()):
        return None
    grown = math.hypot(affine[0, 0], affine[1, 0])
    return transform_points(eyes, affine) if 0.9 < grown < 1.1 else None


def fill_gaps(path: F64, known: Bool) -> F64:
    """Return (n, ...): what is known in each frame, or in the nearest known frame; 0 where none is."""
    frames, at = np.arange(len(path)), np.flatnonzero(known)
    if not len(at):
        return np.zeros_like(path)
    after = np.searchsorted(at, frames).clip(0, len(at) - 1)
    before = (after - 1).clip(0)
    return path[at[np.where(np.abs(at[before] - frames) <= np.abs(at[after] - frames), before, after)]]


def smooth(path: F64, frames: float) -> F64:
    """Return (n, ...) averaged over time by a Gaussian of this standard deviation."""
    reach = math.ceil(2.5 * frames)
    kernel = np.exp(-((np.arange(-reach, reach + 1) / frames) ** 2) / 2)
    padded = np.pad(path, ((reach, reach), *((0, 0),) * (path.ndim - 1)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0)
    return np.asarray(windows @ (kernel / kernel.sum()), np.float64)


def compute_weights(seen: Bool) -> F64:
    """Return (n,) 1 in frames with a face, 0 in others, with slopes inside the intervals."""
    distance = np.full(len(seen), float(FADE_FRAMES + 1))
    missing = np.flatnonzero(~seen)
    for n in range(len(seen)):
        if len(missing):
            distance[n] = np.abs(missing - n).min()
    return np.clip(distance / (FADE_FRAMES + 1), 0, 1)
