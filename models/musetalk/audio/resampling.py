"""The voice of a job as Whisper takes it: mono at 16 kHz, in chunks of 30 s.

By chunks, an hour needs no more memory than a minute.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import soxr  # type: ignore[import-untyped]

from models.arrays import F32
from models.media.audio.mixing import join_frames, mix_to_mono
from models.media.audio.sound import Decoder, open_sound
from models.musetalk.audio.features import CHUNK_SAMPLES, SAMPLE_RATE


def read_speech(path: Path) -> F32:
    """Return a whole sound at 16 kHz, (n,) float32 in -1..1.

    The mix of its channels is resampled by soxr at HQ.

    Equal to librosa.load(path, sr=16000) where that can read the file and its channels do not cancel.
    Raises EngineError audio_unreadable.
    """
    return np.concatenate([np.zeros(0, np.float32), *read_chunks(path)])


def read_chunks(path: Path) -> Iterator[F32]:
    """Yield the samples of `read_speech` in chunks of 30 s, the last one shorter.

    Raises EngineError audio_unreadable.
    """
    pending: list[F32] = []
    for resampled in _resample_file(path):
        pending.append(resampled)
        if sum(map(len, pending)) >= CHUNK_SAMPLES:
            samples = np.concatenate(pending)
            complete = len(samples) // CHUNK_SAMPLES * CHUNK_SAMPLES
            yield from np.split(samples[:complete], complete // CHUNK_SAMPLES)
            pending = [samples[complete:]]
    if any(map(len, pending)):
        yield np.concatenate(pending)


def _resample_file(path: Path) -> Iterator[F32]:
    with open_sound(path, path.name) as (container, stream):
        for rate, frames in groupby(Decoder(container, stream), key=lambda frame: frame.sample_rate):
            yield from _resample(mix_to_mono(join_frames(frames), rate), rate)


def _resample(chunks: Iterable[F32], rate: int) -> Iterator[F32]:
    """Resample chunk by chunk; in all, as librosa has it, ceil(n * ratio) samples in floats."""
    resampler = (
        soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ") if rate != SAMPLE_RATE else None
    )
    samples_in = samples_out = 0
    for chunk in chunks:
        samples_in += len(chunk)
        out = resampler.resample_chunk(chunk) if resampler else chunk
        samples_out += len(out)
        yield out
    if resampler:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        missing = math.ceil(samples_in * (SAMPLE_RATE / rate)) - samples_out
        yield np.pad(rest, (0, max(0, missing - len(rest))))[: max(0, missing)]
