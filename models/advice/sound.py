"""What a sound engineer would say of a voice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.advice.picture import Advice
from models.arrays import F64, Floats
from models.preview.speech import RATE, measure_voice

_STEP = RATE // 50
_SPOKEN, _FLAT, _LOUD = 0.1, 0.001, 0.05
_NOISY_DB, _QUIET_DB, _UNEVEN_DB, _HEARD_DB = 18.0, -45.0, 12.0, 35.0


def advise_on_voice(waveform: Floats) -> Advice:
    """Return the advice about a voice, (n,) float32 in -1..1, mono, at 16 kHz."""
    levels = measure_levels_db(waveform)
    if not len(levels):
        return {}
    quiet, loud = (float(np.percentile(levels, share)) for share in (10, 95))
    if loud < _QUIET_DB - 30 or measure_voice(waveform) < _SPOKEN:
        return {"sound_no_voice": "no voice is heard in the audio: send a recording of somebody who speaks"}
    advice = {}
    if measure_flat_share(waveform) > _FLAT:
        advice["sound_clipped"] = "the audio is clipped: record it at a lower level"
    if loud - quiet < _NOISY_DB:
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
    loudest = float(np.percentile(levels, 95))
    seconds = [float(np.percentile(levels[at : at + 50], 90)) for at in range(0, len(levels) - 25, 50)]
    heard = [second for second in seconds if second > loudest - _HEARD_DB]
    return max(heard) - min(heard) if heard else 0.0
