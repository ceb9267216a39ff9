"""Voice activity, for mouths that close in pauses: where a sound is above its own noise."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from models.arrays import F32, Bool
from models.musetalk.audio.features import SAMPLE_RATE
from models.musetalk.tracking.intervals import find_runs

HOPS_PER_S = 100
FADE_S = 0.16
"""Seconds in which the mouth closes, and opens again."""

_HOP_SAMPLES = SAMPLE_RATE // HOPS_PER_S
_BAND = slice(2, 40)  # 200 Hz to 4 kHz: below is hum, above is mostly hiss
_SILENT_DB = -70.0  # of full scale: inaudible
_LOUD_DB = -35.0  # a steady sound is noise, unless it is as loud as a voice
_MIN_RANGE_DB = 9.0  # between noise and voice
_PAUSE_HOPS = 30  # shorter gaps are between two words, or the closure of a stop
_BURST_HOPS = 4  # shorter sounds are clicks
_LEAD_HOPS = 10  # lips part before a voice is heard, and close after


def measure_levels(chunks: Iterable[F32]) -> F32:
    """Return the level every 10 ms in dB of full scale, (hops,) float32, of a sound at 16 kHz.

    `chunks` (n,) in -1..1 are of whole hops, all but the last. A sine at full scale has -3 dB.
    """
    return np.concatenate([np.zeros(0, np.float32), *map(_measure_chunk, chunks)])


def detect_voice(levels_db: F32, rate: Fraction, frames: range) -> F32:
    """Return how much voice is in the middle of each frame, (len(frames),) float32.

    0 is a pause, 1 is voice, with fades between them.

    levels_db   of the whole sound, from `measure_levels`: noise is the level of its quiet tenth
    rate        frames a second

    Pauses under 0.3 s are filled. The mouth is fully open from 0.1 s before the voice to 0.1 s
    after it.
    """
    speech = _dilate(_drop_short_runs(_find_speech(levels_db), _PAUSE_HOPS, _BURST_HOPS), _LEAD_HOPS)
    curve = _fade_out(speech)
    middle = (2 * np.arange(frames.start, frames.stop) + 1) * (HOPS_PER_S / float(2 * rate))
    if not len(curve):
        return np.zeros(len(frames), np.float32)
    return np.interp(middle, np.arange(len(curve)) + 0.5, curve).astype(np.float32)


def _measure_chunk(samples: F32) -> F32:
    hops = np.pad(samples, (0, -len(samples) % _HOP_SAMPLES)).reshape(-1, _HOP_SAMPLES)
    spectrum = np.abs(np.fft.rfft(hops * np.hanning(_HOP_SAMPLES).astype(np.float32)))[:, _BAND] / _HOP_SAMPLES
    return (10 * np.log10((spectrum**2).sum(1) * 16 / 3 + 1e-12)).astype(np.float32)


def _find_speech(levels_db: F32) -> Bool:
    if not len(levels_db):
        return np.zeros(0, np.bool_)
    noise, voice = np.percentile(levels_db, [10, 95])
    noise = max(float(noise), _SILENT_DB)
    if voice < noise + _MIN_RANGE_DB:
        return np.full(len(levels_db), voice > _LOUD_DB)
    return np.asarray(levels_db > noise + np.clip(0.35 * (voice - noise), 6, 18))


def _drop_short_runs(speech: Bool, pause_hops: int, burst_hops: int) -> Bool:
    """Drop bursts, then fill pauses; the other way round, each click in a pause would halve it."""
    kept = speech.copy()
    for value, shortest in ((True, burst_hops), (False, pause_hops)):
        for start, stop in find_runs(kept == value):
            at_an_end = start == 0 or stop == len(kept)
            if stop - start < shortest and (value or not at_an_end):
                kept[start:stop] = not value
    return kept


def _dilate(speech: Bool, hops: int) -> Bool:
    return np.convolve(np.pad(speech, hops), np.ones(2 * hops + 1), "valid") > 0.5


def _fade_out(speech: Bool) -> F32:
    """Return 1 in the speech, and half a cosine outside of it, which is 0 from FADE_S away."""
    fade = round(FADE_S * HOPS_PER_S)
    shape = 0.5 + 0.5 * np.cos(np.pi * np.abs(np.arange(-fade, fade + 1)) / fade)
    padded, curve = np.pad(speech, fade).astype(np.float32), np.zeros(len(speech), np.float32)
    for offset, weight in enumerate(shape.astype(np.float32)):
        np.maximum(curve, padded[offset : offset + len(speech)] * weight, out=curve)
    return curve
