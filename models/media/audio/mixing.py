"""Mix a sound to one channel without losing a voice, and tell how loud it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import av
import numpy as np

from models.arrays import F32

_ENOUGH = 0.249
"""Share of the loudest channel's power that a mix keeps: half of its amplitude, less rounding."""
_FADES_PER_S = 50
_BLOCKS_PER_S = 50
_SILENT_DB = -70.0
_STEADY_DB = 9.0
_SHORTEST_S = 1


def read_channels(frame: Any) -> F32:
    """Return a decoded frame as (channels, n) float32 in -1..1."""
    return _scale_samples(frame.to_ndarray(), frame.layout.nb_channels, is_planar=frame.format.is_planar)


def _scale_samples(values: Any, count: int, *, is_planar: bool) -> F32:
    channels = values if is_planar else values.reshape(-1, count).T
    if values.dtype == np.uint8:
        channels = channels.astype(np.int16) - 128
    if values.dtype.kind in "iu":
        channels = channels.astype(np.float32) / np.float32(2 ** (8 * values.dtype.itemsize - 1))
    converted: F32 = channels.astype(np.float32, copy=False)
    return converted


def mix_to_mono(pieces: Iterable[F32], rate: int) -> Iterator[F32]:
    """Yield a sound in one channel, (n,), second by second; `pieces` are (channels, n).

    The mix is the mean of the channels. In a second in which that has less than half of the
    loudest channel's amplitude, channels that are the reverse of the loudest are turned over;
    where that is not enough either, the loudest channel alone is taken. Changes are faded.
    """
    weights: F32 | None = None
    for channels in _join_pieces(pieces, rate):
        before, weights = weights, _choose_weights(channels, weights)
        mixed = _apply_weights(weights, channels)
        if before is not None and len(before) == len(weights) and (before != weights).any():
            fade = np.linspace(0, 1, rate // _FADES_PER_S, dtype=np.float32)[: len(mixed)]
            mixed[: len(fade)] *= fade
            mixed[: len(fade)] += _apply_weights(before, channels[:, : len(fade)]) * (1 - fade)
        yield mixed


def _join_pieces(pieces: Iterable[F32], rate: int) -> Iterator[F32]:
    """Yield pieces of about a second. The number of channels may change between them."""
    for _, alike in groupby(pieces, key=len):
        pending: list[F32] = []
        for piece in alike:
            pending.append(piece)
            if sum(held.shape[1] for held in pending) >= rate:
                yield np.concatenate(pending, axis=1)
                pending = []
        if pending:
            yield np.concatenate(pending, axis=1)


def _choose_weights(channels: F32, current: F32 | None) -> F32:
    """Return the weights of the second before if they keep enough, else the first that do."""
    count = len(channels)
    mean = np.full(count, 1 / count, np.float32)
    if count == 1:
        return mean
    power = channels @ channels.T
    loudest = int(np.argmax(power.diagonal()))
    wanted = _ENOUGH * float(power[loudest, loudest])
    kept = current if current is not None and len(current) == count else mean
    for weights in (kept, mean, np.where(power[loudest] < 0, -mean, mean)):
        if float(weights @ power @ weights) >= wanted:
            return weights
    return np.asarray(np.eye(count)[loudest], np.float32)


def _apply_weights(weights: F32, channels: F32) -> F32:
    if (weights == weights[0]).all():  # rounded as librosa does
        return np.asarray(np.mean(channels, axis=0), np.float32)
    return np.asarray(weights @ channels, np.float32)


def mix_frames(frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Yield the frames in one channel. Those of one channel pass unchanged."""
    for (channels, rate), alike in groupby(frames, key=lambda frame: (frame.layout.nb_channels, frame.sample_rate)):
        if channels == 1:
            yield from alike
        else:
            yield from _mix_group(alike, rate)


def _mix_group(frames: Iterable[av.AudioFrame], rate: int) -> Iterator[av.AudioFrame]:
    for samples in mix_to_mono(map(read_channels, frames), rate):
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate = rate
        yield frame


class LevelMeter:
    """Measure the level of a sound, frame by frame, in its loudest channel."""

    def __init__(self) -> None:
        self._powers: list[F32] = []
        self._pending: list[Any] = []
        self._shape: tuple[str, int, int] | None = None

    def add(self, frame: av.AudioFrame) -> None:
        """Hear the next frame. About a second is measured at once, which costs less."""
        shape = (frame.format.name, frame.layout.nb_channels, frame.sample_rate)
        if shape != self._shape:
            self._measure()
            self._shape, self._planar, self._held = shape, frame.format.is_planar, 0
        self._pending.append(frame.to_ndarray())
        self._held += frame.samples
        if self._held >= frame.sample_rate:
            self._measure()

    def describe(self, name: str) -> tuple[str, ...]:
        """Return a note where the sound is silent, or where no voice is in it."""
        self._measure()
        levels = 10 * np.log10(np.concatenate([np.zeros(0, np.float32), *self._powers]) + 1e-12)
        if levels.max(initial=-120) < _SILENT_DB:
            return (f"{name} is silent: the mouth stays closed",)
        quiet, loud = np.percentile(levels, [10, 95])
        if len(levels) >= _SHORTEST_S * _BLOCKS_PER_S and loud - quiet < _STEADY_DB:
            return (f"no voice was found in {name}: its level is as steady as that of noise or of a tone",)
        return ()

    def _measure(self) -> None:
        if not self._pending or self._shape is None:
            return
        _, count, rate = self._shape
        channels = _scale_samples(np.concatenate(self._pending, axis=1), count, is_planar=self._planar)
        self._pending, self._held = [], 0
        block = max(1, rate // _BLOCKS_PER_S)
        samples = channels.shape[1] - channels.shape[1] % block or channels.shape[1]
        blocks = channels[:, :samples].reshape(len(channels), -1, min(block, samples))
        self._powers.append((np.einsum("cbn,cbn->cb", blocks, blocks) / blocks.shape[2]).max(0))
