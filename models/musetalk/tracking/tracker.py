"""One face followed through a video, a few frames at a time: what is kept of a frame is where the face was in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from models.musetalk.tracking.detection import LARGEST_SIDE, REDUCED_SIDE, Bgr, Region, face_region, whole_frame_region
from models.musetalk.tracking.landmarks import is_on_face
from models.musetalk.tracking.selection import FaceSelector, intersection_over_union
from models.musetalk.tracking.shots import CutDetector

Floats = npt.NDArray[Any]
Face = Literal["largest"] | int
"""Which of several faces: the largest where a shot begins, or a number counted from 0, left to right."""

_NO_FACE = np.full(5, np.nan)


class FaceModels(Protocol):
    """What a Follower needs of FaceNets."""

    def detect(self, frames: Sequence[Bgr], *, reference: bool) -> list[Floats]: ...

    def find_landmarks(self, frames: Sequence[Bgr], regions: Sequence[Region] | None = None) -> Floats: ...


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """What `plan_boxes` needs, of n frames.

    landmarks   (n, 68, 2) in pixels, NaN where the face was not seen
    detected    (n, 5) x1, y1, x2, y2, score of the chosen face; NaN where it was not seen
    cuts        frames with which a shot begins, the first one left out
    most        faces in the frame that shows most of them
    """

    landmarks: Floats
    detected: Floats
    cuts: tuple[int, ...]
    most: int

    @property
    def seen(self) -> bool:
        """Whether the wanted face is in any frame. If not, but `most` is not 0, there are others."""
        return bool(np.isfinite(self.detected).any())


class FaceTracker:
    """Fed all frames of a video in order. What it says depends on how they were bundled by rounding errors at most.

    The pose net looks at the whole frame, as the reference's does, as long as it shows one face; from where it shows
    several, or where the landmarks are not on the detected face, until the shot ends it looks at what is around the
    chosen one. Where even that puts no landmarks on the face, its box is found again in the frame at full size.
    """

    def __init__(self, nets: FaceModels, face: Face = "largest") -> None:
        self._nets, self._face = nets, face
        self._shots, self._subject, self._closer = CutDetector(), FaceSelector(face), False
        self._landmarks: list[Floats] = []
        self._detected: list[Floats] = []
        self._cuts: list[int] = []
        self._most = 0

    def add_frames(self, frames: Sequence[Bgr]) -> None:
        """The next frames, (h, w, 3) uint8 BGR each, all of one size; 8 to 16 at once are good."""
        first = len(self._detected)
        regions: list[Region] = []
        for frame, faces in zip(frames, self._nets.detect(frames, reference=False), strict=True):
            if self._shots.add_frame(frame):
                self._cuts.append(len(self._detected))
                self._subject, self._closer = FaceSelector(self._face), False
            self._most = max(self._most, len(faces))
            self._closer |= len(faces) > 1
            index = self._subject.select(faces)
            box = _NO_FACE if index is None else faces[index].astype(np.float64)
            self._detected.append(box)
            regions.append(face_region(box) if self._closer else whole_frame_region(*frame.shape[1::-1]))
        self._add_landmarks(frames, regions, first)

    def _add_landmarks(self, frames: Sequence[Bgr], regions: list[Region], first: int) -> None:
        self._landmarks += [np.full((68, 2), np.nan) for _ in frames]
        seen = [number for number in range(len(frames)) if np.isfinite(self._detected[first + number][0])]
        astray = self._store_landmarks(frames, seen, regions, first)
        if astray:
            self._closer = True
            closer = [face_region(self._detected[first + number]) for number in range(len(frames))]
            astray = self._store_landmarks(frames, astray, closer, first)
        for number in astray:
            self._detected[first + number] = self._search_full_size(frames[number], self._detected[first + number])

    def _store_landmarks(
        self, frames: Sequence[Bgr], numbers: list[int], regions: list[Region], first: int
    ) -> list[int]:
        """Store landmarks of some frames; which of them lie elsewhere than the face."""
        if not numbers:
            return []
        found = self._nets.find_landmarks([frames[n] for n in numbers], [regions[n] for n in numbers])
        for number, points in zip(numbers, found, strict=True):
            self._landmarks[first + number] = points
        fits = is_on_face(found, np.stack([self._detected[first + n] for n in numbers]), 0)
        return [number for number, fit in zip(numbers, fits, strict=True) if not fit]

    def _search_full_size(self, frame: Bgr, box: Floats) -> Floats:
        if not REDUCED_SIDE < max(frame.shape[:2]) <= LARGEST_SIDE:
            return box
        faces = self._nets.detect([frame], reference=True)[0]
        alike = intersection_over_union(box, faces) if len(faces) else np.zeros(1)
        return faces[alike.argmax()].astype(np.float64) if alike.max() > 0 else box

    def finish(self) -> FaceTrack:
        return _build_track(self._landmarks, self._detected, self._cuts, self._most)


class ReferenceTracker:
    """The reference's way: the best face of each frame at full size, landmarks in the whole frame, frame by frame."""

    def __init__(self, nets: FaceModels) -> None:
        self._nets = nets
        self._landmarks: list[Floats] = []
        self._detected: list[Floats] = []
        self._most = 0

    def add_frames(self, frames: Sequence[Bgr]) -> None:
        for frame, faces in zip(frames, self._nets.detect(frames, reference=True), strict=True):
            self._most = max(self._most, len(faces))
            self._detected.append(faces[0].astype(np.float64) if len(faces) else _NO_FACE)
            self._landmarks.append(self._nets.find_landmarks([frame])[0] if len(faces) else np.full((68, 2), np.nan))

    def finish(self) -> FaceTrack:
        return _build_track(self._landmarks, self._detected, [], self._most)


def _build_track(landmarks: list[Floats], detected: list[Floats], cuts: list[int], most: int) -> FaceTrack:
    points = np.array(landmarks, np.float64).reshape(-1, 68, 2)
    return FaceTrack(points, np.array(detected, np.float64).reshape(-1, 5), tuple(cuts), most)
