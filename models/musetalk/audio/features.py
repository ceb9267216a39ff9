"""Whisper's features of a voice, and the ten positions around each video frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from models.arrays import F32, I64

SAMPLE_RATE = 16_000
CHUNK_SAMPLES = 30 * SAMPLE_RATE
"""Samples that Whisper's encoder takes at once."""
POSITIONS_PER_S = 50
CONTEXT = 2
"""Frames of 40 ms that a window reaches before and after its own."""


class Features(Protocol):
    """An array or a file, (positions, layers, d) float32, read by slices of its first axis."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, part: slice, /) -> F32: ...


class FeatureFile:
    """A .npy file of features.

    A slice reads only its own positions, so memory does not grow with the sound.
    """

    def __init__(self, path: Path) -> None:
        mapped: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        self._path, self._offset = path, int(mapped.offset)
        self.shape: tuple[int, ...] = mapped.shape

    def __getitem__(self, part: slice) -> F32:
        start, stop, _ = part.indices(self.shape[0])
        row = math.prod(self.shape[1:])
        count = max(0, stop - start) * row
        values = np.fromfile(self._path, np.float32, count, offset=self._offset + 4 * row * start)
        return values.reshape(-1, *self.shape[1:])


def count_frames(samples: int, rate: Fraction, *, reference: bool = False) -> int:
    """Return the number of video frames that `samples` at 16 kHz fill, at `rate` frames a second.

    reference   whether to count as MuseTalk does: the rate truncated, times in floats

    >>> count_frames(29 * 640, Fraction(25)), count_frames(29 * 640, Fraction(25), reference=True)
    (29, 28)
    """
    if reference:
        return math.floor(samples / SAMPLE_RATE * int(rate))
    return math.floor(samples * rate / SAMPLE_RATE)


def audio_windows(
    features: Features,
    samples: int,
    rate: Fraction,
    frames: range,
    *,
    reference: bool = False,
    context: tuple[int, int] = (CONTEXT, CONTEXT),
) -> F32:
    """Return what the UNet hears at each frame, (len(frames), tokens, d) float32.

    tokens are the positions of a window times the layers.

    features   (positions, layers, d), of the whole sound of `samples` samples
    rate       frames a second, exact; any
    reference  whether to cut as MuseTalk does: the rate truncated, times in floats, zeros in front
               by the length of a frame. Otherwise a window begins 80 ms before the position in
               which its frame begins.
    context    frames of 40 ms before and after; a window has 2 * (before + 1 + after) positions

    Positions outside the sound are zeros.
    """
    find_first = _find_first_reference if reference else _find_first
    known = min(_count_positions(samples, reference=reference), features.shape[0])
    length = 2 * (sum(context) + 1)
    positions = find_first(frames, rate, context[0], known)[:, None] + np.arange(length)
    inside = (positions >= 0) & (positions < known)
    windows = np.zeros((*positions.shape, *features.shape[1:]), np.float32)
    if inside.any():
        first, last = int(positions[inside].min()), int(positions[inside].max())
        windows[inside] = features[first : last + 1][positions[inside] - first]
    return windows.reshape(len(frames), length * features.shape[1], features.shape[2])


def _count_positions(samples: int, *, reference: bool) -> int:
    if reference:
        return math.floor(samples / SAMPLE_RATE * POSITIONS_PER_S)
    return samples * POSITIONS_PER_S // SAMPLE_RATE


def _find_first(frames: Sequence[int], rate: Fraction, before: int, _known: int) -> I64:
    step = POSITIONS_PER_S / rate
    return np.array([n * step.numerator // step.denominator - 2 * before for n in frames], np.int64)


def _find_first_reference(frames: Sequence[int], rate: Fraction, before: int, known: int) -> I64:
    step = POSITIONS_PER_S / int(rate)
    zeros = min(math.ceil(step) * before, known)
    return np.array([math.floor(n * step) - zeros for n in frames], np.int64)
