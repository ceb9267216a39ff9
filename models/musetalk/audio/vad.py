"""Where somebody speaks: the level of the sound above its own noise, for mouths that close in pauses."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from models.musetalk.audio.whisper import SAMPLE_RATE
from models.musetalk.tracking.intervals import find_runs

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

HOPS_PER_S = 100
FADE_S = 0.16
"""How long the mouth takes to settle, and to come back."""

_HOP = SAMPLE_RATE // HOPS_PER_S
_BAND = slice(2, 40)  # 200 Hz to 4 kHz: below is hum, above is mostly hiss
_SILENT_DB = -70.0  # of full scale: nothing can be heard
_LOUD_DB = -35.0  # a steady sound is noise, unless it is as loud as a voice
_RANGE_DB = 9.0  # between noise and voice, at least
_PAUSE_HOPS = 30  # shorter gaps are between two words, or the closure of a stop
_BURST_HOPS = 4  # shorter sounds are clicks
_LEAD_HOPS = 10  # lips part before a voice is heard, and close after


def measure_levels(sound: Iterable[Floats]) -> Floats:
    """Level every 10 ms in dB of full scale, (hops,) float32, of a sound in pieces of whole hops (all but the last)."""
    return np.concatenate([np.zeros(0, np.float32), *map(_measure_chunk, sound)])


def detect_voice(level: Floats, rate: Fraction, frames: range) -> Floats:
    """How much somebody speaks in the middle of each frame: (len(frames),) float32 from 0, a pause, to 1, with fades.

    level   of the whole sound, from `levels`: noise is what the quiet tenth of it has
    rate    frames a second

    A pause shorter than 0.3 s is none; the mouth is fully back 0.1 s before the voice and stays as long after it.
    """
    speech = _dilate(_drop_short_runs(_find_speech(level), _PAUSE_HOPS, _BURST_HOPS), _LEAD_HOPS)
    curve = _fade_out(speech)
    middle = (2 * np.arange(frames.start, frames.stop) + 1) * (HOPS_PER_S / float(2 * rate))
    if not len(curve):
        return np.zeros(len(frames), np.float32)
    return np.interp(middle, np.arange(len(curve)) + 0.5, curve).astype(np.float32)


def _measure_chunk(samples: Floats) -> Floats:
    whole = np.pad(samples, (0, -len(samples) % _HOP)).reshape(-1, _HOP)
    spectrum = np.abs(np.fft.rfft(whole * np.hanning(_HOP).astype(np.float32)))[:, _BAND] / _HOP
    return (10 * np.log10((spectrum**2).sum(1) * 16 / 3 + 1e-12)).astype(np.float32)  # a full sine has -3 dB


def _find_speech(level: Floats) -> Bools:
    if not len(level):
        return np.zeros(0, np.bool_)
    noise, voice = np.percentile(level, [10, 95])
    noise = max(float(noise), _SILENT_DB)
    if voice < noise + _RANGE_DB:
        return np.full(len(level), voice > _LOUD_DB)
    return np.asarray(level > noise + np.clip(0.35 * (voice - noise), 6, 18))


def _drop_short_runs(speech: Bools, pause: int, burst: int) -> Bools:
    """Bursts go first, or each click in a pause would halve it."""
    kept = speech.copy()
    for value, shortest in ((True, burst), (False, pause)):
        for start, stop in find_runs(kept == value):
            at_an_end = start == 0 or stop == len(kept)
            if stop - start < shortest and (value or not at_an_end):
                kept[start:stop] = not value
    return kept


def _dilate(speech: Bools, hops: int) -> Bools:
    return np.convolve(np.pad(speech, hops), np.ones(2 * hops + 1), "valid") > 0.5


def _fade_out(speech: Bools) -> Floats:
    """Half a cosine, outside the speech: 1 in it, 0 from FADE_S away."""
    fade = round(FADE_S * HOPS_PER_S)
    shape = 0.5 + 0.5 * np.cos(np.pi * np.abs(np.arange(-fade, fade + 1)) / fade)
    padded, curve = np.pad(speech, fade).astype(np.float32), np.zeros(len(speech), np.float32)
    for offset, weight in enumerate(shape.astype(np.float32)):
        np.maximum(curve, padded[offset : offset + len(speech)] * weight, out=curve)
    return curve
