"""One face tracked through a video, a few frames at a time; only its place is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.arrays import F64, U8, Floats
from models.musetalk.tracking.detection import LARGEST_SIDE, REDUCED_SIDE
from models.musetalk.tracking.landmarks import is_on_face
from models.musetalk.tracking.regions import Region, face_region, whole_frame_region
from models.musetalk.tracking.selection import FaceChoice, FaceSelector, JointSelector, intersection_over_union
from models.musetalk.tracking.shots import CutDetector

_NO_BOX = np.full(5, np.nan)


class FaceModels(Protocol):
    """The networks that find faces; `FaceNets` documents the methods."""

    def detect(self, frames: Sequence[U8], *, reference: bool) -> list[Floats]: ...

    def find_landmarks(self, frames: Sequence[U8], regions: Sequence[Region] | None = None) -> Floats: ...


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """Where the chosen face is in n frames, as `plan_boxes` takes it.

    landmarks   (n, 68, 2) pixels; NaN where the face was not seen
    detected    (n, 5) x1, y1, x2, y2, score; NaN where the face was not seen
    cuts        frames with which shots begin, the first one left out
    max_faces   faces in the frame that shows most of them
    """

    landmarks: F64
    detected: F64
    cuts: tuple[int, ...]
    max_faces: int

    @property
    def has_face(self) -> bool:
        """Whether any frame shows the chosen face.

        If not, but `max_faces` is not 0, there are others.
        """
        return bool(np.isfinite(self.detected).any())


class FaceTracker:
    """Tracks the chosen face.

    How the frames are batched changes the result by rounding errors at most.

    The pose net sees the whole frame, as in MuseTalk, while it shows one face. From a frame with
    several faces, or with landmarks that are not on the detected face, until the shot ends, it
    sees the region around the chosen face. Where even that gives no landmarks on the face, its box
    is searched in the frame at full size.
    """

    def __init__(self, models: FaceModels, choice: FaceChoice = "largest", count: int = 0) -> None:
        """Track the face `choice`; where `count` is not 0, of so many that are told apart."""
        self._models, self._choice, self._count = models, choice, count
        self._cut_detector, self._selector, self._near = CutDetector(), self._make_selector(), False
        self._landmarks: list[Floats] = []
        self._detected: list[Floats] = []
        self._cuts: list[int] = []
        self._max_faces = 0

    def add_frames(self, frames: Sequence[U8]) -> None:
        """Take the next frames, (h, w, 3) uint8 BGR, all of one size.

        8 to 16 at once are fast.
        """
        first = len(self._detected)
        regions: list[Region] = []
        for frame, faces in zip(frames, self._models.detect(frames, reference=False), strict=True):
            if self._cut_detector.add_frame(frame):
                self._cuts.append(len(self._detected))
                self._selector, self._near = self._make_selector(), False
            self._max_faces = max(self._max_faces, len(faces))
            self._near |= len(faces) > 1
            index = self._selector.select(faces)
            box = _NO_BOX if index is None else faces[index].astype(np.float64)
            self._detected.append(box)
            regions.append(face_region(box) if self._near else whole_frame_region(*frame.shape[1::-1]))
        self._add_landmarks(frames, regions, first)

    def _make_selector(self) -> FaceSelector | JointSelector:
        if self._count and isinstance(self._choice, int):
            return JointSelector(self._choice, self._count)
        return FaceSelector(self._choice)

    def finish(self) -> FaceTrack:
        """Return the track of all frames that were added."""
        return _build_track(self._landmarks, self._detected, self._cuts, self._max_faces)

    def _add_landmarks(self, frames: Sequence[U8], regions: list[Region], first: int) -> None:
        self._landmarks += [np.full((68, 2), np.nan) for _ in frames]
        seen = [number for number in range(len(frames)) if np.isfinite(self._detected[first + number][0])]
        astray = self._store_landmarks(frames, seen, regions, first)
        if astray:
            self._near = True
            near = [face_region(self._detected[first + number]) for number in range(len(frames))]
            astray = self._store_landmarks(frames, astray, near, first)
        for number in astray:
            self._detected[first + number] = self._search_full_size(frames[number], self._detected[first + number])

    def _store_landmarks(
        self, frames: Sequence[U8], numbers: list[int], regions: list[Region], first: int
    ) -> list[int]:
        """Store the landmarks of some frames; return the frames where they miss the face."""
        if not numbers:
            return []
        found = self._models.find_landmarks([frames[n] for n in numbers], [regions[n] for n in numbers])
        for number, points in zip(numbers, found, strict=True):
            self._landmarks[first + number] = points
        fits = is_on_face(found, np.stack([self._detected[first + n] for n in numbers]), 0)
        return [number for number, fit in zip(numbers, fits, strict=True) if not fit]

    def _search_full_size(self, frame: U8, box: Floats) -> Floats:
        if not REDUCED_SIDE < max(frame.shape[:2]) <= LARGEST_SIDE:
            return box
        faces = self._models.detect([frame], reference=True)[0]
        overlaps = intersection_over_union(box, faces) if len(faces) else np.zeros(1)
        return faces[overlaps.argmax()].astype(np.float64) if overlaps.max() > 0 else box


class ReferenceTracker:
    """MuseTalk's way: the best face of each frame at full size, frame by frame.

    Landmarks are found in the whole frame.
    """

    def __init__(self, models: FaceModels) -> None:
        self._models = models
        self._landmarks: list[Floats] = []
        self._detected: list[Floats] = []
        self._max_faces = 0

    def add_frames(self, frames: Sequence[U8]) -> None:
        """Take the next frames, (h, w, 3) uint8 BGR each."""
        for frame, faces in zip(frames, self._models.detect(frames, reference=True), strict=True):
            self._max_faces = max(self._max_faces, len(faces))
            self._detected.append(faces[0].astype(np.float64) if len(faces) else _NO_BOX)
            points = self._models.find_landmarks([frame])[0] if len(faces) else np.full((68, 2), np.nan)
            self._landmarks.append(points)

    def finish(self) -> FaceTrack:
        """Return the track of all frames that were added."""
        return _build_track(self._landmarks, self._detected, [], self._max_faces)


def _build_track(landmarks: list[Floats], detected: list[Floats], cuts: list[int], max_faces: int) -> FaceTrack:
    points = np.array(landmarks, np.float64).reshape(-1, 68, 2)
    return FaceTrack(points, np.array(detected, np.float64).reshape(-1, 5), tuple(cuts), max_faces)
