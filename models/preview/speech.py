"""Turn speech into a mouth: features every 10 ms, and the shape of the lips in each frame."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from models.arrays import Floats
from models.preview import visemes

RATE = 16000
HOPS_PER_S = 100
SPEED_PER_S = 8.75
"""The highest speed of the lips, in full openings a second; 0.35 a frame at 25 fps."""

_HOP = RATE // HOPS_PER_S
_WINDOW = 512
_BLOCK_HOPS = 4096
_RANGE_DB = 50.0
_LEAD_HOPS = 1
"""By how much the lips lead the sound. More of it costs phonemes: at 30 ms a and m differ by 0.33 of the opening, at
10 ms by 0.45, and closures stay open."""
_GAIN, _BIAS = 1.8, 0.12
_STEADY_HOPS, _ACTIVE_HOPS, _HEARD_DB = 5, 81, 25.0
_STEADY, _SPOKEN = 1.05, 1.5
"""Change of the spectrum in 80 ms: noises and chords had 0.8, speech under noise 5 dB below it from 1.6."""


def make_mouth_curve(waveform: Floats, frames: int, fps: Fraction) -> Floats:
    """Return the shape of the mouth in the middle of each video frame.

    waveform  (n,) float32 in -1..1, mono, 16 kHz
    returns   (frames, 2) float32: opening 0 (closed) .. 1, and spread -1 (rounded, as in "oo") .. 1 (as in "ee").
              Neither changes by more than SPEED_PER_S / fps from one frame to the next.
    """
    power = _compute_mel_power(waveform)
    wanted = visemes.predict_mouth(_extract_from_power(power))
    opened = np.clip(_GAIN * _smooth(_extend_closures(wanted[:, 0])) - _BIAS, 0, 1)
    opening = limit_slope((opened * measure_activity(power)).astype(np.float32))
    spread = _smooth(wanted[:, 1])
    spread = (limit_slope(spread) - limit_slope(-spread)) / 2
    return np.stack([_sample_at_frames(opening, frames, fps), _sample_at_frames(spread, frames, fps)], 1)


def extract_features(waveform: Floats) -> Floats:
    """Return (hops, visemes.FEATURES) float32: ten cepstra of level and shape, and their trend."""
    return _extract_from_power(_compute_mel_power(waveform))


def _extract_from_power(power: Floats) -> Floats:
    cepstra = compute_log_mel(power) @ _make_cosines().T
    level = cepstra[:, :1]
    loud = level[:, 0] > 0.35 * np.percentile(level, 95)
    if loud.any():  # the mean depends on speaker and microphone, not on the phoneme
        cepstra[:, 1:] -= cepstra[loud, 1:].mean(0) * np.minimum(1, level / 0.3)
    before, after = _shift_rows(cepstra, -5), _shift_rows(cepstra, 5)
    return np.concatenate([cepstra, (after - cepstra)[:, :2], (before - cepstra)[:, :2]], 1)


def measure_voice(waveform: Floats) -> float:
    """Return the share of the time in which somebody speaks."""
    return float(measure_activity(_compute_mel_power(waveform)).mean())


def measure_activity(power: Floats) -> Floats:
    """Return (hops,) float32 1 where somebody speaks .. 0 in hiss, hum and held chords.

    Speech changes its spectrum from one sound to the next, within a tenth of a second and loudly; a
    noise doesn't, however loud it is. `power` is (hops, bands).
    """
    steady = np.stack([_average(band, np.ones(_STEADY_HOPS) / _STEADY_HOPS) for band in power.T], 1)
    cepstra = (10 * np.log10(steady + 1e-9) @ _make_cosines().T)[:, 1:]
    change = np.linalg.norm(_shift_rows(cepstra, 4) - _shift_rows(cepstra, -4), axis=1)
    level = steady.sum(1)
    heard = level > np.percentile(level, 95) * 10 ** (-_HEARD_DB / 10)
    window = np.hanning(_ACTIVE_HOPS)
    changing = np.clip((change - _STEADY) / (_SPOKEN - _STEADY), 0, 1) * heard
    share = _average(changing, window) / np.maximum(_average(heard, window), 1e-3)
    return np.clip((share - 0.3) / 0.15, 0, 1).astype(np.float32)


def _average(values: Floats, window: Floats) -> Floats:
    """Return the sums of a row under a window of odd length around each value."""
    return np.convolve(np.pad(values.astype(np.float64), len(window) // 2), window, "valid")


def compute_log_mel(power: Floats) -> Floats:
    """Return levels (hops, bands) float32 of (hops, bands) power: 0 is steady noise or 50 dB below
    1, the loud parts."""
    noise = np.percentile(power, 10, axis=0)
    loud = np.percentile(power.max(1), 95)
    quiet = max(float(loud) * 10 ** (-_RANGE_DB / 10), 1e-6)
    clean = np.maximum(power - 2 * np.minimum(noise, loud / 100), quiet)
    return np.asarray(np.clip(10 * np.log10(clean / quiet) / _RANGE_DB, 0, 1.3), np.float32)


def limit_slope(curve: Floats) -> Floats:
    """Return the largest curve below this one whose slope is at most SPEED_PER_S."""
    ramp = np.arange(len(curve)) * (SPEED_PER_S / HOPS_PER_S)
    forward = np.minimum.accumulate(curve - ramp) + ramp
    backward = np.minimum.accumulate((curve + ramp)[::-1])[::-1] - ramp
    return np.minimum(forward, backward).astype(np.float32)


def _compute_mel_power(waveform: Floats) -> Floats:
    hops = max(1, -(-len(waveform) // _HOP))
    padded = np.pad(waveform, ((_WINDOW - _HOP) // 2, _WINDOW + _HOP))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][:hops]
    blocks = (_compute_block_power(windows[i : i + _BLOCK_HOPS]) for i in range(0, hops, _BLOCK_HOPS))
    return np.concatenate(list(blocks))


def _compute_block_power(windows: Floats) -> Floats:
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32))) ** 2
    return (spectrum @ _make_mel_bands().T).astype(np.float32)


def _make_mel_bands(lowest_hz: float = 120, highest_hz: float = 7000) -> Floats:
    mel = np.linspace(np.log1p(lowest_hz / 700), np.log1p(highest_hz / 700), visemes.BANDS + 2)
    edges = 700 * np.expm1(mel)
    hz = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    rising = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def _make_cosines() -> Floats:
    order, band = np.arange(visemes.CEPSTRA)[:, None], np.arange(visemes.BANDS) + 0.5
    return (np.cos(np.pi * order * band / visemes.BANDS) / visemes.BANDS).astype(np.float32)


def _shift_rows(rows: Floats, hops: int) -> Floats:
    return rows[np.clip(np.arange(len(rows)) + hops, 0, len(rows) - 1)]


def _extend_closures(curve: Floats) -> Floats:
    """Extend closures by a hop on both sides: lips meet before the sound stops."""
    padded = np.pad(curve, 1, "edge")
    return np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])


def _smooth(curve: Floats) -> Floats:
    kernel = np.hanning(9)[1:-1]
    return np.convolve(np.pad(curve, 3, "edge"), kernel / kernel.sum(), "valid").astype(np.float32)


def _sample_at_frames(curve: Floats, frames: int, fps: Fraction) -> Floats:
    middle_s = (np.arange(frames) + 0.5) / float(fps)
    heard_s = (np.arange(len(curve)) + 0.5 - _LEAD_HOPS) / HOPS_PER_S
    return np.interp(middle_s, heard_s, curve, right=0.0).astype(np.float32)
