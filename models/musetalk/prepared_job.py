"""What `prepare` writes for the other stages: avatar, features of the voice, frame schedule."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from models.arrays import F32, I64
from models.musetalk.audio.features import CONTEXT, FeatureFile, audio_windows
from models.musetalk.audio.vad import HOPS_PER_S, detect_voice
from models.musetalk.avatar.store import PreparedAvatar
from models.musetalk.frame_timing import fade_weights, pick_source_frames
from models.musetalk.options import Options
from models.musetalk.tracking.intervals import find_runs

AVATAR, FEATURES, SCHEDULE, STATS = "avatar", "heard.npy", "course.npz", "facts.json"
"""Names in the folder of a prepared job. They can't change: one release may prepare a job, and the
next render it."""
INPAINTER_STATS = "painted.json"
"""In the work folder of a job: how the inpainter worked."""


@dataclass(frozen=True, slots=True)
class FrameSchedule:
    """Which frame of the avatar each of n frames shows, and how strongly its mouth is inpainted.

    source            (n,) int64, numbers of the avatar's frames
    weight            (n,) float32, 0: the frame is the avatar's own, to 1: the mouth is inpainted
    voice             (n,) float32, how much voice there is, 0 to 1; all 1 where pauses are not
                      asked for
    thumbnail_frame   a frame for the preview picture
    """

    source: I64
    weight: F32
    voice: F32
    thumbnail_frame: int

    def write(self, folder: Path) -> None:
        """Write what rendering needs. Raises OSError where the disk is full."""
        np.savez(folder / SCHEDULE, source=self.source, weight=self.weight)


def plan_frames(
    avatar: PreparedAvatar, levels_db: F32, frame_count: int, rate: Fraction, options: Options
) -> FrameSchedule:
    """Return the schedule of a result of `frame_count` frames at `rate` a second.

    `levels_db` (hops,) are those of the sound, from `vad.measure_levels`.
    """
    source = pick_source_frames(frame_count, len(avatar), options.cycle)
    seen = avatar.seen[source]
    weight = seen.astype(np.float32) if options.is_reference else fade_weights(seen, rate)
    closes_in_pauses = options.silence == "close"
    voice = detect_voice(levels_db, rate, range(frame_count)) if closes_in_pauses else np.ones(frame_count, np.float32)
    weight = weight * voice
    return FrameSchedule(source, weight, voice, choose_thumbnail_frame(levels_db, weight, rate))


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

    def find_inpainted_runs(self, frames: range) -> list[range]:
        """Return the runs of frames whose mouth is inpainted at all."""
        visible = self.weight[frames.start : frames.stop] > 0
        return [range(frames.start + start, frames.start + stop) for start, stop in find_runs(visible)]

    def read_latents(self, frames: range) -> F32:
        """Return the latents of the avatar at frames of the result, (n, 8, 32, 32) float32."""
        return self.avatar.read_latents(self.source[frames.start : frames.stop])

    def audio_windows(
        self, frames: range, rate: Fraction, *, reference: bool, context: tuple[int, int] = (CONTEXT, CONTEXT)
    ) -> F32:
        """Return what the UNet hears at frames of the result, (n, tokens, 384) float32; tokens are usually 50.

        See `features.audio_windows`.
        """
        return audio_windows(self._features, self._samples, rate, frames, reference=reference, context=context)
