"""What `prepare` leaves for the other stages: the avatar, what is heard, and which frame is painted how strongly."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.musetalk.audio.vad import HOPS_PER_S, detect_voice
from models.musetalk.audio.whisper import FeatureFile, audio_windows
from models.musetalk.avatar.store import STATS, PreparedAvatar
from models.musetalk.compositing.composite import BgrBlend, YuvBlend
from models.musetalk.compositing.masks import Box
from models.musetalk.frame_timing import fade_weights, pick_source_frames
from models.musetalk.options import Options
from models.musetalk.tracking.intervals import find_runs
from models.types import Colour

AVATAR, FEATURES, SCHEDULE = "avatar", "heard.npy", "course.npz"
Floats = npt.NDArray[np.float32]


def plan_schedule(
    prepared: PreparedAvatar, level: Floats, frames: int, rate: Fraction, options: Options
) -> dict[str, Any]:
    """`source` (frames,) of the avatar, `weight` (frames,) 0..1, `voice` (frames,) 0..1, `poster`.

    `level` is that of the sound, see voice.levels.
    """
    source = pick_source_frames(frames, len(prepared), options.cycle)
    seen = prepared.seen[source]
    weight = seen.astype(np.float32) if options.is_reference else fade_weights(seen, rate)
    voice = detect_voice(level, rate, range(frames)) if options.silence == "close" else np.ones(frames, np.float32)
    weight = weight * voice
    return {
        "source": source,
        "weight": weight,
        "voice": voice,
        "poster": np.array(choose_thumbnail_frame(level, weight, rate)),
    }


def write_schedule(folder: Path, arrays: dict[str, Any]) -> None:
    """Keep what rendering needs of a `course`."""
    np.savez(folder / SCHEDULE, source=arrays["source"], weight=arrays["weight"])


def choose_thumbnail_frame(level: Floats, weight: Floats, rate: Fraction) -> int:
    """A frame in which somebody speaks up, rather in the middle than at an end: the mouth is probably open."""
    if not len(level) or not weight.any():
        return len(weight) // 2
    number = np.arange(len(weight))
    loud = np.interp((number + 0.5) * (HOPS_PER_S / float(rate)), np.arange(len(level)) + 0.5, level)
    far = np.abs(number / len(weight) - 0.5)
    return int(np.argmax(np.where(weight > 0.5, loud - 12 * far, -np.inf)))


class PreparedJob:
    """A prepared job, open for rendering."""

    def __init__(self, folder: Path) -> None:
        self.prepared = PreparedAvatar(folder / AVATAR)
        self.features = FeatureFile(folder / FEATURES)
        self.samples = int(json.loads((folder / STATS).read_bytes())["samples"])
        with np.load(folder / SCHEDULE, allow_pickle=False) as arrays:
            self.source, self.weight = arrays["source"], arrays["weight"]

    def find_inpainted_runs(self, frames: range) -> list[range]:
        """The runs of frames that get a face at all."""
        shown = self.weight[frames.start : frames.stop] > 0
        return [range(frames.start + start, frames.start + stop) for start, stop in find_runs(shown)]

    def latents(self, frames: range) -> Floats:
        return self.prepared.latents(self.source[frames.start : frames.stop])

    def audio_windows(self, frames: range, rate: Fraction, *, reference: bool) -> Floats:
        return audio_windows(self.features, self.samples, rate, frames, reference=reference)


class Compositor:
    """Pastes of the avatar's frames at any strength, as planes or (`colour` None) as BGR. `size` is width, height."""

    def __init__(self, prepared: PreparedAvatar, size: tuple[int, int], colour: Colour | None) -> None:
        self.prepared, self.size, self.colour = prepared, size, colour

    def make_blend(self, source: int, opacity: float = 1.0) -> BgrBlend | YuvBlend:
        mask, box, region = self._parts(source)
        if self.colour is None:
            return BgrBlend(mask, box, region, self.size, opacity)
        return YuvBlend(mask, box, region, self.size, self.colour, opacity)

    def _parts(self, source: int) -> tuple[npt.NDArray[np.uint8], Box, Box]:
        return self.prepared.mask(source), self.prepared.box(source), self.prepared.region(source)
