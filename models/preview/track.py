"""Follow a face through a video: detect it, track its skin, detect it again where it was lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from models.arrays import F64, U8, Bool
from models.preview.face import Face, find_face_near, transform_points

FIND_EVERY = 12
MOST_DRIFT = 0.25
"""Distance of tracked and detected eyes, in eye distances, from which the face changed."""
NUDGE = 0.3
FADE_FRAMES = 5
FEWEST_POINTS = 12

Finder = Callable[[U8], Face | None]
"""Searches a whole picture for the face."""


@dataclass(frozen=True, slots=True)
class Track:
    """eyes (n, 2, 2): left and right, x and y in pixels. weight (n,): 0 without a face."""

    eyes: F64
    weight: F64


def follow_face(frames: Iterator[U8], find: Finder, progress: Callable[[int], None]) -> Track:
    """Follow the face that `find` returns through all frames, (h, w, 3) uint8 BGR each."""
    seen: list[F64 | None] = []
    before: tuple[U8, F64] | None = None
    for number, frame in enumerate(frames):
        grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8)
        eyes = move_eyes(before[0], grey, before[1]) if before else None
        if eyes is None or number % FIND_EVERY == 0:
            eyes = correct_eyes(eyes, find(frame) if eyes is None else find_face_near(frame, make_face_at(eyes)))
        before = (grey, eyes) if eyes is not None else None
        seen.append(eyes)
        progress(number + 1)
    return Track(fill_gaps(seen), compute_weights(np.array([eyes is not None for eyes in seen])))


def make_face_at(eyes: F64) -> Face:
    """Return a face of usual proportions around its eyes, (2, 2) x and y."""
    (ax, ay), (bx, by) = eyes.tolist()
    side = 2.1 * math.dist((ax, ay), (bx, by))
    return Face(((ax + bx - side) / 2, (ay + by) / 2 - 0.38 * side, side, side), ((ax, ay), (bx, by)), True)


def move_eyes(before: U8, now: U8, eyes: F64) -> F64 | None:
    """Track the eyes, (2, 2) x and y, from one grey frame to the next; None where the face is
    lost.

    Points of the mouth are left out, because it moves by itself.
    """
    mask = np.zeros_like(before)
    middle, distance = eyes.mean(0), float(np.hypot(*(eyes[1] - eyes[0])))
    centre = (round(middle[0]), round(middle[1]))
    cv2.ellipse(mask, centre, (round(0.95 * distance), round(0.6 * distance)), 0, 0, 360, 255, -1)
    points = cv2.goodFeaturesToTrack(before, 120, 0.01, max(2.0, distance / 25), mask=mask)
    if points is None or len(points) < FEWEST_POINTS:
        return None
    start: Any = np.asarray(points, np.float32)
    found, status, _ = cv2.calcOpticalFlowPyrLK(before, now, start, start.copy(), winSize=(21, 21), maxLevel=3)
    kept = status.ravel() == 1
    if kept.sum() < FEWEST_POINTS:
        return None
    affine, inliers = cv2.estimateAffinePartial2D(points[kept], found[kept], ransacReprojThreshold=1.5)
    if affine is None or inliers.sum() < max(FEWEST_POINTS, 0.5 * kept.sum()):
        return None
    grown = math.hypot(affine[0, 0], affine[1, 0])
    return transform_points([(x, y) for x, y in eyes], affine) if 0.8 < grown < 1.25 else None


def correct_eyes(tracked: F64 | None, face: Face | None) -> F64 | None:
    """Move tracked eyes a little towards detected ones, or replace them after a large drift."""
    if face is None:
        return tracked
    found = np.array(face.eyes)
    if tracked is None or np.abs(found - tracked).max() > MOST_DRIFT * face.eye_distance:
        return found
    return tracked + NUDGE * (found - tracked) if face.eyes_found else tracked


def fill_gaps(seen: list[F64 | None]) -> F64:
    """Return (n, 2, 2) eyes: those of the nearest frame with a face, with a little smoothing."""
    known = [n for n, eyes in enumerate(seen) if eyes is not None]
    nearest = [min(known, key=lambda k, n=n: abs(k - n)) for n in range(len(seen))]  # type: ignore[misc]
    path = np.array([seen[n] for n in nearest])
    padded = np.pad(path, ((1, 1), (0, 0), (0, 0)), "edge")
    return np.asarray(0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:], np.float64)


def compute_weights(seen: Bool) -> F64:
    """Return (n,) 1 in frames with a face, 0 in others, with slopes inside the intervals."""
    distance = np.full(len(seen), float(FADE_FRAMES + 1))
    missing = np.flatnonzero(~seen)
    for n in range(len(seen)):
        if len(missing):
            distance[n] = np.abs(missing - n).min()
    return np.clip(distance / (FADE_FRAMES + 1), 0, 1)
