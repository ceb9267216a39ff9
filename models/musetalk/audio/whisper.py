"""Speech in: samples at 16 kHz, the hidden states of Whisper's encoder, and the ten of them about each video frame.

Long sound is handled 30 s at a time, as Whisper hears it, so that an hour needs no more memory than a minute.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soxr  # type: ignore[import-untyped]
import torch
from torch import nn

from models.media.sound import Decoder, open_sound
from models.musetalk.inpainting.streams import open_stream

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
CHUNK_SAMPLES = 30 * SAMPLE_RATE
"""Samples that Whisper's encoder hears at once."""
POSITIONS_PER_S = 50
CONTEXT = 2
"""Frames of 40 ms that a window reaches before and after its own."""


class Positions(Protocol):
    """An array, or a file of one, that is read by slices of its first axis: (positions, layers, d) float32."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, part: slice, /) -> Floats: ...


def read_speech(path: Path) -> Floats:
    """The whole sound as (n,) float32, mono, at 16 kHz: the mean of the channels, resampled by soxr at HQ.

    Equal to librosa.load(path, sr=16000) where that can read the file. Raises EngineError audio_unreadable.
    """
    return np.concatenate([np.zeros(0, np.float32), *read_chunks(path)])


def read_chunks(path: Path) -> Iterator[Floats]:
    """The same samples in pieces of 30 s, the last one shorter. Raises EngineError audio_unreadable."""
    held: list[Floats] = []
    for chunk in _resample_file(path):
        held.append(chunk)
        if sum(map(len, held)) >= CHUNK_SAMPLES:
            samples = np.concatenate(held)
            whole = len(samples) // CHUNK_SAMPLES * CHUNK_SAMPLES
            yield from np.split(samples[:whole], whole // CHUNK_SAMPLES)
            held = [samples[whole:]]
    if any(map(len, held)):
        yield np.concatenate(held)


def count_frames(samples: int, rate: Fraction, *, reference: bool = False) -> int:
    """Video frames that a sound of so many samples fills. The reference truncates the rate and rounds in floats.

    >>> count_frames(29 * 640, Fraction(25)), count_frames(29 * 640, Fraction(25), reference=True)
    (29, 28)
    """
    if reference:
        return math.floor(samples / SAMPLE_RATE * int(rate))
    return math.floor(samples * rate / SAMPLE_RATE)


class WhisperEncoder:
    """Whisper's encoder on a device.

    encoder    transformers' WhisperEncoder
    extractor  transformers' WhisperFeatureExtractor
    """

    def __init__(self, encoder: nn.Module, extractor: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._encoder, self._extractor = encoder.to(device, dtype).eval(), extractor
        self._device, self._dtype, self._lane = device, dtype, open_stream(device)

    def encode(self, samples: Floats) -> Floats:
        """What is heard in a whole sound: (50 a second, layers + 1, d) float32."""
        return np.concatenate(
            [
                self.encode_chunk(samples[at : at + CHUNK_SAMPLES])
                for at in range(0, max(1, len(samples)), CHUNK_SAMPLES)
            ]
        )

    def encode_chunk(self, chunk: Floats) -> Floats:
        """What is heard in at most 30 s: (len(chunk) // 320, layers + 1, d) float32, a position every 20 ms.

        The layers are the convolutions' output and each block's, the last one after the final norm.
        """
        return self._lane.run(partial(self._encode, chunk))()

    @torch.no_grad()
    def _encode(self, chunk: Floats) -> Floats:
        mel = self._extractor(chunk, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        states = self._encoder(mel.to(self._device, self._dtype), output_hidden_states=True).hidden_states
        heard: Floats = torch.stack(states, 2)[0, : len(chunk) * POSITIONS_PER_S // SAMPLE_RATE].float().cpu().numpy()
        return heard

    def encode_to_file(self, path: Path, sound: Iterable[Floats]) -> int:
        """Hear a sound piece by piece into a .npy file at `path`; returns its number of samples."""
        samples = positions = 0
        with path.open("wb") as file:
            for piece in sound:
                heard = self.encode_chunk(piece)
                samples, positions = samples + len(piece), positions + len(heard)
                if file.tell() == 0:
                    _write_header(file, (0, *heard.shape[1:]))
                file.write(heard.tobytes())
            file.seek(0)
            _write_header(file, (positions, *heard.shape[1:]))
        return samples


class FeatureFile:
    """A .npy file of features; a slice reads just these positions, so memory stays small."""

    def __init__(self, path: Path) -> None:
        whole: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        self._path, self._offset = path, int(whole.offset)
        self.shape: tuple[int, ...] = whole.shape

    def __getitem__(self, part: slice) -> Floats:
        start, stop, _ = part.indices(self.shape[0])
        row = math.prod(self.shape[1:])
        count = max(0, stop - start) * row
        values = np.fromfile(self._path, np.float32, count, offset=self._offset + 4 * row * start)
        return values.reshape(-1, *self.shape[1:])


def audio_windows(
    features: Positions,
    samples: int,
    rate: Fraction,
    frames: range,
    *,
    reference: bool = False,
    context: tuple[int, int] = (CONTEXT, CONTEXT),
) -> Floats:
    """What the UNet hears at each frame: (len(frames), tokens, d) float32, tokens = positions of the window * layers.

    features   (positions, layers, d), of the whole sound of `samples` samples
    rate       frames a second, exact; any
    reference  whether to cut as the reference does: the rate truncated, times in floats, zeros in front by the frame's
               length. Otherwise a frame's window begins 80 ms before the position in which the frame begins.
    context    frames of 40 ms before and after; a window has 2 * (before + 1 + after) positions

    Outside the sound there are zeros.
    """
    begin = _first_positions_reference if reference else _first_positions
    heard = min(_count_positions(samples, reference=reference), features.shape[0])
    length = 2 * (sum(context) + 1)
    starts = begin(frames, rate, context[0], heard)
    positions = starts[:, None] + np.arange(length)
    inside = (positions >= 0) & (positions < heard)
    cut = np.zeros((*positions.shape, *features.shape[1:]), np.float32)
    if inside.any():
        first, last = int(positions[inside].min()), int(positions[inside].max())
        cut[inside] = features[first : last + 1][positions[inside] - first]
    return cut.reshape(len(frames), length * features.shape[1], features.shape[2])


def _count_positions(samples: int, *, reference: bool) -> int:
    return (
        math.floor(samples / SAMPLE_RATE * POSITIONS_PER_S) if reference else samples * POSITIONS_PER_S // SAMPLE_RATE
    )


def _first_positions(frames: Sequence[int], rate: Fraction, before: int, _heard: int) -> npt.NDArray[np.int64]:
    step = POSITIONS_PER_S / rate
    return np.array([n * step.numerator // step.denominator - 2 * before for n in frames], np.int64)


def _first_positions_reference(frames: Sequence[int], rate: Fraction, before: int, heard: int) -> npt.NDArray[np.int64]:
    step = POSITIONS_PER_S / int(rate)
    zeros = min(math.ceil(step) * before, heard)
    return np.array([math.floor(n * step) - zeros for n in frames], np.int64)


def _resample_file(path: Path) -> Iterator[Floats]:
    with open_sound(path, path.name) as (container, stream):
        for rate, frames in groupby(Decoder(container, stream), key=lambda frame: frame.sample_rate):
            yield from _resample(map(_to_mono, frames), rate)


def _resample(chunks: Iterable[Floats], rate: int) -> Iterator[Floats]:
    """Chunk by chunk; in all, as librosa has it, ceil(n * ratio) samples in floats."""
    resampler = (
        soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ") if rate != SAMPLE_RATE else None
    )
    taken = given = 0
    for chunk in chunks:
        taken += len(chunk)
        out = resampler.resample_chunk(chunk) if resampler else chunk
        given += len(out)
        yield out
    if resampler:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        missing = math.ceil(taken * (SAMPLE_RATE / rate)) - given
        yield np.pad(rest, (0, max(0, missing - len(rest))))[: max(0, missing)]


def _to_mono(frame: Any) -> Floats:
    """A decoded frame as (n,) float32 in -1..1."""
    values = frame.to_ndarray()
    channels = values if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        channels = channels.astype(np.int16) - 128
    if values.dtype.kind in "iu":
        channels = channels.astype(np.float32) / np.float32(2 ** (8 * values.dtype.itemsize - 1))
    mean: Floats = np.mean(channels.astype(np.float32, copy=False), axis=0)
    return mean


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    """numpy leaves room in it for the first axis to grow, so that it can be written again."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
