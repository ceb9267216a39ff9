"""What a sound engineer would say of a voice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.advice.picture import Advice
from models.arrays import F64, Floats
from models.preview.speech import RATE, measure_voice

_STEP = RATE // 50
_QUIET_SHARE = 5
_SPOKEN, _FLAT, _LOUD = 0.1, 0.001, 0.05
_NOISY_DB, _QUIET_DB, _UNEVEN_DB, _HEARD_DB = 18.0, -45.0, 12.0, 45.0
_ABOVE_NOISE_DB, _HEARD_STEPS, _SHORT_STEPS = 8.0, 20, 75
_PITCH_WINDOW, _PITCH_STEP, _PITCH_FFT = 256, 80, 1024
"""In samples at a quarter of the rate."""
_PITCH_LAGS = slice(10, 66)
"""Periods of 60 to 400 Hz in the same samples."""
_VOICED, _PITCHED, _GLIDING, _FEWEST_PAIRS = 0.6, 0.03, 0.03, 20


def advise_on_voice(waveform: Floats) -> Advice:
    """Return the advice about a voice, (n,) float32 in -1..1, mono, at 16 kHz."""
    levels = measure_levels_db(waveform)
    if not len(levels):
        return {}
    quiet, loud = (float(np.percentile(levels, share)) for share in (_QUIET_SHARE, 95))
    if loud < _QUIET_DB - 30 or measure_voice(waveform) < _SPOKEN or is_music(waveform):
        return {"sound_no_voice": "no voice is heard in the audio: send a recording of somebody who speaks"}
    advice = {}
    if measure_flat_share(waveform) > _FLAT:
        advice["sound_clipped"] = "the audio is clipped: record it at a lower level"
    is_short = len(levels) < _SHORT_STEPS  # without a pause in which noise alone is heard
    if loud - quiet < (_NOISY_DB / 2 if is_short else _NOISY_DB):
        noise = f"the noise is only {loud - quiet:.0f} dB below the voice"
        advice["sound_noisy"] = f"{noise}: record it in a quiet room, or remove the noise"
    if loud < _QUIET_DB:
        advice["sound_quiet"] = f"the voice is quiet ({loud:.0f} dB): record it at a higher level"
    if (range_db := measure_unevenness_db(levels)) > _UNEVEN_DB:
        parts = f"parts of the voice are {range_db:.0f} dB quieter than others"
        advice["sound_uneven"] = f"{parts}: bring all speakers to one level"
    return advice


def advise_on_levels(waveforms: Sequence[Floats]) -> Advice:
    """Return the advice about several voices that are heard in one result."""
    loud = [float(np.percentile(levels, 95)) for one in waveforms if len(levels := measure_levels_db(one))]
    if len(loud) < 2 or max(loud) - min(loud) <= _UNEVEN_DB:
        return {}
    apart = f"the voices are {max(loud) - min(loud):.0f} dB apart"
    return {"sound_levels": f"{apart}: bring all speakers to one level"}


def measure_levels_db(waveform: Floats) -> F64:
    """Return the level of each 20 ms, in decibels below full scale."""
    steps = waveform[: len(waveform) // _STEP * _STEP].reshape(-1, _STEP).astype(np.float64)
    return np.asarray(20 * np.log10(np.sqrt((steps**2).mean(1)) + 1e-6))


def measure_flat_share(waveform: Floats) -> float:
    """Return the share of samples that stay at the peak, as they do where a recording is clipped."""
    peak = float(np.abs(waveform).max())
    if peak < _LOUD:
        return 0.0
    at_peak = np.abs(waveform) >= 0.99 * peak
    return float((at_peak[1:] & at_peak[:-1]).mean())


def measure_unevenness_db(levels: F64) -> float:
    """Return by how much the quietest second with a voice is below the loudest."""
    noise, loudest = np.percentile(levels, (_QUIET_SHARE, 95))
    heard = levels > max(loudest - _HEARD_DB, noise + _ABOVE_NOISE_DB)
    starts = range(0, len(levels) - 25, 50)
    parts = (levels[at : at + 50][heard[at : at + 50]] for at in starts)
    seconds = [float(np.percentile(part, 90)) for part in parts if len(part) >= _HEARD_STEPS]
    return max(seconds) - min(seconds) if seconds else 0.0


def is_music(waveform: Floats) -> bool:
    """Whether what is heard has no pitch, as drums and clicks, or one that stays from note to note.

    The pitch of a voice glides by a tenth of a semitone and more in 20 ms, also in song and in that of a machine.
    """
    voiced, glides = measure_pitch(waveform)
    return voiced < _PITCHED or (len(glides) >= _FEWEST_PAIRS and float(np.median(glides)) < _GLIDING)


def measure_pitch(waveform: Floats) -> tuple[float, F64]:
    """Return the share of the loud moments that have a pitch, 0 to 1, and its changes in 20 ms, (n,) in semitones."""
    wave = np.convolve(waveform, np.full(4, 0.25, np.float32), "same")[::4]
    wave = np.pad(wave, (0, max(0, _PITCH_WINDOW + _PITCH_STEP - len(wave))))
    rows = np.lib.stride_tricks.sliding_window_view(wave, _PITCH_WINDOW)[::_PITCH_STEP]
    rows = rows - rows.mean(1, keepdims=True)
    power = (rows**2).mean(1)
    loud = power > np.percentile(power, 95) * 10 ** (-25 / 10)
    window = np.hanning(_PITCH_WINDOW).astype(np.float32)
    alike = _correlate_with_itself(rows * window) / _correlate_with_itself(window[None])
    found = (alike / np.maximum(alike[:, :1], 1e-12))[:, _PITCH_LAGS]
    best = found.argmax(1)
    inside = np.clip(best, 1, found.shape[1] - 2)
    before, at, after = (found[np.arange(len(found)), inside + step] for step in (-1, 0, 1))
    bend = np.minimum(before - 2 * at + after, -1e-9)
    period = inside + _PITCH_LAGS.start + np.clip((before - after) / (2 * bend), -0.5, 0.5)
    voiced = loud & (found.max(1) > _VOICED) & (best == inside)
    both = voiced[1:] & voiced[:-1]
    glides = np.abs(12 * np.diff(np.log2(period)))[both]
    return float(voiced.sum() / max(1, loud.sum())), np.asarray(glides[glides < 2], np.float64)


def _correlate_with_itself(rows: Floats) -> Floats:
    """Return the autocorrelation of rows at each lag up to the longest period, 1 at none for a row of ones."""
    spectrum = np.abs(np.fft.rfft(rows, _PITCH_FFT)) ** 2
    found = np.fft.irfft(spectrum)[:, : _PITCH_LAGS.stop]
    return np.asarray(found, np.float32)
