"""A face followed through a video: found, then tracked by its skin, found again where it was lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.preview.face import Face, Image, find_near, transform

FIND_EVERY = 12
MOST_DRIFT = 0.25
"""Eye distances between tracked and found eyes above which it is another face, or a cut."""
NUDGE = 0.3
FADE_FRAMES = 5
FEWEST_POINTS = 12

Finder = Callable[[Image], Face | None]
"""Searches a whole picture for the wanted face."""


@dataclass(frozen=True, slots=True)
class Track:
    """eyes (n, 2, 2): left and right eye, x and y in pixels, of each frame. weight (n,): 0 where there is no face."""

    eyes: npt.NDArray[Any]
    weight: npt.NDArray[Any]


def follow(frames: Iterator[Image], find: Finder, tick: Callable[[int], None]) -> Track:
    """Track the face that `find` finds through all frames, (h, w, 3) uint8 BGR each."""
    seen: list[npt.NDArray[Any] | None] = []
    before: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
    for number, frame in enumerate(frames):
        grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8)
        eyes = moved(before[0], grey, before[1]) if before else None
        if eyes is None or number % FIND_EVERY == 0:
            eyes = corrected(eyes, find(frame) if eyes is None else find_near(frame, face_at(eyes)))
        before = (grey, eyes) if eyes is not None else None
        seen.append(eyes)
        tick(number + 1)
    return Track(filled(seen), faded(np.array([eyes is not None for eyes in seen])))


def face_at(eyes: npt.NDArray[Any]) -> Face:
    (ax, ay), (bx, by) = eyes.tolist()
    side = 2.1 * math.dist((ax, ay), (bx, by))
    return Face(((ax + bx - side) / 2, (ay + by) / 2 - 0.38 * side, side, side), ((ax, ay), (bx, by)), True)


def moved(before: npt.NDArray[Any], now: npt.NDArray[Any], eyes: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Where the eyes of the frame before are now; None where the face is lost. The mouth is left out: it talks."""
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
    return transform([(x, y) for x, y in eyes], affine) if 0.8 < grown < 1.25 else None


def corrected(tracked: npt.NDArray[Any] | None, face: Face | None) -> npt.NDArray[Any] | None:
    """A found face draws the tracked eyes a little towards its own, or replaces them where they have gone astray."""
    if face is None:
        return tracked
    found = np.array(face.eyes)
    if tracked is None or np.abs(found - tracked).max() > MOST_DRIFT * face.eye_distance:
        return found
    return tracked + NUDGE * (found - tracked) if face.eyes_found else tracked


def filled(seen: list[npt.NDArray[Any] | None]) -> npt.NDArray[Any]:
    """Frames without a face get the eyes of the nearest frame with one; the path is smoothed a little."""
    known = [n for n, eyes in enumerate(seen) if eyes is not None]
    nearest = [min(known, key=lambda k, n=n: abs(k - n)) for n in range(len(seen))]  # type: ignore[misc]
    path = np.array([seen[n] for n in nearest])
    padded = np.pad(path, ((1, 1), (0, 0), (0, 0)), "edge")
    return np.asarray(0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:], np.float64)


def faded(seen: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """1 where a face was seen, 0 where not, with a slope inside the seen stretches, never outside."""
    distance = np.full(len(seen), float(FADE_FRAMES + 1))
    missing = np.flatnonzero(~seen)
    for n in range(len(seen)):
        if len(missing):
            distance[n] = np.abs(missing - n).min()
    return np.clip(distance / (FADE_FRAMES + 1), 0, 1)
