"""What `prepare` writes for the other stages: avatar, features of the voice, frame schedule."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from models.arrays import F32, I64, Bool
from models.musetalk.audio.features import CONTEXT, FeatureFile, audio_windows
from models.musetalk.audio.vad import HOPS_PER_S, detect_voice
from models.musetalk.avatar.store import PAINTED, PreparedAvatar
from models.musetalk.draft import DraftPlan, number_shots, plan_draft
from models.musetalk.frame_timing import fade_edges, fade_weights, pick_source_frames
from models.musetalk.options import Options
from models.musetalk.tracking.intervals import find_runs
from models.quality.trace import FaceTrace, take_share

AVATAR, FEATURES, SCHEDULE, STATS, ENGINE = "avatar", "heard.npy", "course.npz", "facts.json", "engine.json"
"""Names in the folder of a prepared job. They can't change: one release may prepare a job, and the
next render it."""
_MOUTH, _UPPER = (0.27, 0.6, 0.73, 0.92), (0.12, 0.02, 0.88, 0.42)
"""Left, top, right and bottom as shares of the box of a face."""


@dataclass(frozen=True, slots=True)
class FrameSchedule:
    """Which frame of the avatar each of n frames shows, and how strongly its mouth is inpainted.

    source            (n,) int64, numbers of the avatar's frames
    weight            (n,) float32, 0: the frame is the avatar's own, to 1: the mouth is inpainted
    voice             (m,) float32, how much voice there is in each of the m frames that follow it,
                      0 to 1; all 1 where pauses are not asked for
    seen              (m,) whether each of those shows the face
    thumbnail_frame   a frame for the preview picture
    first             the frame of the avatar that was prepared first
    voiced_from       the first frame that follows the voice
    """

    source: I64
    weight: F32
    voice: F32
    seen: Bool
    thumbnail_frame: int
    first: int = 0
    voiced_from: int = 0

    def write(self, folder: Path) -> None:
        """Write what rendering needs. Raises OSError where the disk is full."""
        starts = np.array([self.first, self.voiced_from])
        np.savez(folder / SCHEDULE, source=self.source, weight=self.weight, starts=starts)


@dataclass(frozen=True, slots=True)
class ScenePart:
    """The frames of a result that follow the voice, where that are not all.

    voiced          those frames
    first           the frame of the avatar that was prepared first
    avatar_frames   all frames that the avatar has
    """

    voiced: range
    first: int
    avatar_frames: int


def plan_frames(
    avatar: PreparedAvatar,
    levels_db: F32,
    frame_count: int,
    rate: Fraction,
    options: Options,
    part: ScenePart | None = None,
) -> FrameSchedule:
    """Return the schedule of a result of `frame_count` frames at `rate` a second.

    `levels_db` (hops,) are those of the voice, from `vad.measure_levels`. All frames follow it
    where there is no `part`.
    """
    part = part or ScenePart(range(frame_count), 0, len(avatar))
    voiced = part.voiced
    source = pick_source_frames(frame_count, part.avatar_frames, options.cycle)
    seen = avatar.seen[source[voiced.start : voiced.stop] - part.first]
    weight = seen.astype(np.float32) if options.is_reference else fade_weights(seen, rate)
    frames = range(len(voiced))
    voice = detect_voice(levels_db, rate, frames) if options.closes_in_pauses else np.ones(len(voiced), np.float32)
    weight = weight * voice * fade_edges(voiced, frame_count, rate)
    thumbnail = voiced.start + choose_thumbnail_frame(levels_db, weight, rate)
    whole = np.zeros(frame_count, np.float32)
    whole[voiced.start : voiced.stop] = weight
    return FrameSchedule(source, whole, voice, seen, thumbnail, part.first, voiced.start)


def choose_thumbnail_frame(levels_db: F32, weight: F32, rate: Fraction) -> int:
    """Return a loud frame, rather in the middle than at an end: its mouth is probably open."""
    if not len(levels_db) or not weight.any():
        return len(weight) // 2
    frames = np.arange(len(weight))
    loudness = np.interp((frames + 0.5) * (HOPS_PER_S / float(rate)), np.arange(len(levels_db)) + 0.5, levels_db)
    from_middle = np.abs(frames / len(weight) - 0.5)
    return int(np.argmax(np.where(weight > 0.5, loudness - 12 * from_middle, -np.inf)))


def read_stats(folder: Path) -> dict[str, Any]:
    """Return what the preparation of a job noted for its result.

    Raises OSError or ValueError without it.
    """
    stats: dict[str, Any] = json.loads((folder / STATS).read_bytes())
    return stats


class PreparedJob:
    """A prepared job, open for rendering.

    Raises OSError or ValueError where its files are missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.avatar = PreparedAvatar(folder / AVATAR)
        self._features = FeatureFile(folder / FEATURES)
        self._samples = int(read_stats(folder)["samples"])
        with np.load(folder / SCHEDULE, allow_pickle=False) as arrays:
            self.source, self.weight = arrays["source"], arrays["weight"]
            self.first, self._voiced_from = map(int, arrays["starts"]) if "starts" in arrays else (0, 0)

    def read_latents(self, frames: range) -> F32:
        """Return the latents of the avatar at frames of the result, (n, 8, 32, 32) float32."""
        return self.avatar.read_latents(self.source[frames.start : frames.stop] - self.first)

    def trace(self) -> FaceTrace:
        """Return where the face is in all frames.

        The box of a face ends at the chin, and its middle is the tip of the nose.
        """
        last = len(self.avatar) - 1
        known = np.clip(self.source - self.first, 0, last)
        x1, y1, x2, y2 = self.avatar.boxes[known].astype(np.float64).T
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], 1)
        return FaceTrace(
            faces=boxes,
            mouths=take_share(boxes, *_MOUTH),
            uppers=take_share(boxes, *_UPPER),
            painted=take_share(boxes, *PAINTED),
            seen=(known == self.source - self.first) & self.avatar.seen[known],
            seam="above",
            bare=None if self.avatar.bare is None else self.avatar.bare[known],
        )

    def audio_windows(
        self, frames: range, rate: Fraction, *, reference: bool, context: tuple[int, int] = (CONTEXT, CONTEXT)
    ) -> F32:
        """Return what the UNet hears at frames of the result, (n, tokens, 384) float32; tokens are usually 50.

        See `features.audio_windows`.
        """
        voiced = range(frames.start - self._voiced_from, frames.stop - self._voiced_from)
        return audio_windows(self._features, self._samples, rate, voiced, reference=reference, context=context)


def name_voice_folder(folder: Path, number: int) -> Path:
    """Return the folder of a voice of a prepared job: that of the first one is the job's."""
    return folder / f"voice-{number}" if number else folder


class PreparedVoices:
    """All voices of a prepared job. The face of voice v in frame n has the number n * voices + v."""

    def __init__(self, folder: Path, count: int) -> None:
        self.jobs = [PreparedJob(name_voice_folder(folder, number)) for number in range(count)]

    def find_inpainted_runs(self, frames: range) -> list[range]:
        """Return the runs of numbers of the faces that are inpainted at all."""
        count = len(self.jobs)
        visible = np.stack([job.weight[frames.start : frames.stop] > 0 for job in self.jobs], axis=1).ravel()
        first = frames.start * count
        return [range(first + start, first + stop) for start, stop in find_runs(visible)]

    def plan_draft(self) -> DraftPlan:
        """Return which faces of the whole job are painted in a draft."""
        voices = []
        for job in self.jobs:
            voices.append((job.weight > 0, number_shots(job.source, job.first, job.avatar.about["cuts"])))
        return plan_draft(voices)

    def read_latents(self, faces: range) -> F32:
        """Return the latents of faces by their numbers; see `PreparedJob.read_latents`."""
        return self._gather(faces, lambda job, frames: job.read_latents(frames))

    def audio_windows(
        self, faces: range, rate: Fraction, *, reference: bool, context: tuple[int, int] = (CONTEXT, CONTEXT)
    ) -> F32:
        """Return what the UNet hears at faces by their numbers; see `PreparedJob.audio_windows`."""
        return self._gather(
            faces, lambda job, frames: job.audio_windows(frames, rate, reference=reference, context=context)
        )

    def _gather(self, faces: range, read: Callable[[PreparedJob, range], F32]) -> F32:
        count = len(self.jobs)
        parts = {}
        for number, job in enumerate(self.jobs):
            frames = range(-(-(faces.start - number) // count), -(-(faces.stop - number) // count))
            if frames:
                parts[frames.start * count + number - faces.start] = read(job, frames)
        if count == 1:
            return parts[0]
        one = next(iter(parts.values()))
        rows = np.empty((len(faces), *one.shape[1:]), one.dtype)
        for first, part in parts.items():
            rows[first::count] = part
        return rows
