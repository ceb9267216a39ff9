"""Mix a sound to one channel without losing a voice."""

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
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


class SampleBuffer:
    """Joins frames of one format, layout and rate to long pieces: converting each alone costs more."""

    def __init__(self, frame: av.AudioFrame) -> None:
        """`frame` is the first one; it is not added."""
        kind, self.channels, self.rate = frame.format, frame.layout.nb_channels, frame.sample_rate
        self.shape = read_shape(frame)
        self._dtype = np.dtype(_DTYPES[kind.name.removesuffix("p")])
        self.is_float = self._dtype.kind == "f"
        self._frame_bytes = self._dtype.itemsize * (1 if kind.is_planar else self.channels)
        self._planes = [bytearray() for _ in range(self.channels if kind.is_planar else 1)]

    def add(self, frame: av.AudioFrame) -> None:
        size = frame.samples * self._frame_bytes
        planes: Any = frame.planes  # buffers, which their type stub doesn't say
        for held, plane in zip(self._planes, planes, strict=True):
            held.extend(memoryview(plane)[:size])

    @property
    def is_full(self) -> bool:
        """Whether a second is there."""
        return len(self._planes[0]) >= self.rate * self._frame_bytes

    def take(self) -> F32:
        """Return what was added since the last call as (channels, n) float32, full scale at 1."""
        planes, self._planes = self._planes, [bytearray() for _ in self._planes]
        with np.errstate(over="ignore"):  # of doubles
            values = [np.frombuffer(plane, self._dtype).astype(np.float32) for plane in planes]
        packed = values[0].reshape(-1, self.channels).T
        channels: F32 = np.ascontiguousarray(packed) if len(planes) == 1 else np.stack(values)
        if not self.is_float:
            full = np.float32(2 ** (8 * self._dtype.itemsize - 1))
            if self._dtype.kind == "u":
                channels -= full
            channels *= 1 / full
        return channels


def read_shape(frame: av.AudioFrame) -> tuple[str, str, int]:
    """Return format, layout and rate of a frame."""
    return frame.format.name, frame.layout.name, frame.sample_rate


def read_channels(frame: av.AudioFrame) -> F32:
    """Return a decoded frame as (channels, n) float32 in -1..1."""
    buffer = SampleBuffer(frame)
    buffer.add(frame)
    return buffer.take()


def join_frames(frames: Iterable[av.AudioFrame]) -> Iterator[F32]:
    """Yield the samples of frames in pieces of about a second, (channels, n) float32."""
    for _, alike in groupby(frames, key=read_shape):
        buffer: SampleBuffer | None = None
        for frame in alike:
            buffer = buffer or SampleBuffer(frame)
            buffer.add(frame)
            if buffer.is_full:
                yield buffer.take()
        if buffer is not None and (rest := buffer.take()).size:
            yield rest


def mix_to_mono(pieces: Iterable[F32], rate: int) -> Iterator[F32]:
    """Yield a sound in one channel, (n,), piece by piece; `pieces` are those of `join_frames`.

    The mix is the mean of the channels. In a piece in which that has less than half of the
    loudest channel's amplitude, channels that are the reverse of the loudest are turned over;
    where that is not enough either, the loudest channel alone is taken. Changes are faded.
    """
    weights: F32 | None = None
    for channels in pieces:
        before, weights = weights, _choose_weights(channels, weights)
        mixed = _apply_weights(weights, channels)
        if before is not None and len(before) == len(weights) and (before != weights).any():
            fade = np.linspace(0, 1, rate // _FADES_PER_S, dtype=np.float32)[: len(mixed)]
            mixed[: len(fade)] *= fade
            mixed[: len(fade)] += _apply_weights(before, channels[:, : len(fade)]) * (1 - fade)
        yield mixed


def _choose_weights(channels: F32, current: F32 | None) -> F32:
    """Return the weights of the second before if they keep enough, else the first that do."""
    count = len(channels)
    mean = np.full(count, 1 / count, np.float32)
    if count == 1:
        return mean
    power = np.array([[one @ other for other in channels] for one in channels])
    loudest = int(np.argmax(power.diagonal()))
    wanted = _ENOUGH * float(power[loudest, loudest])
    kept = current if current is not None and len(current) == count else mean
    for weights in (kept, mean, np.where(power[loudest] < 0, -mean, mean)):
        if float(weights @ power @ weights) >= wanted:
            return weights
    return np.asarray(np.eye(count)[loudest], np.float32)


def _apply_weights(weights: F32, channels: F32) -> F32:
    if (weights == weights[0]).all():  # rounded as librosa does
        return np.asarray(sum(channels[1:], channels[0]) / np.float32(len(channels)), np.float32)
    return np.asarray(weights @ channels, np.float32)


def mix_frames(frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Yield the frames in one channel. Those of one channel pass unchanged."""
    for (channels, rate), alike in groupby(frames, key=lambda frame: (frame.layout.nb_channels, frame.sample_rate)):
        if channels == 1:
            yield from alike
        else:
            yield from _mix_group(alike, rate)


def _mix_group(frames: Iterable[av.AudioFrame], rate: int) -> Iterator[av.AudioFrame]:
    for samples in mix_to_mono(join_frames(frames), rate):
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate = rate
        yield frame
