"""A speech that is computed, the same on every machine: of the self-test, and to calibrate 8 bits with."""

from __future__ import annotations

import numpy as np

from models.arrays import F32
from models.musetalk.audio.features import SAMPLE_RATE

VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))
"""Formants of four vowels in Hz (Peterson and Barney, 1952)."""
PITCH_HZ, BANDWIDTH_HZ = 120.0, 90.0


def make_speech(seconds: float) -> F32:
    """Return a voice that says four vowels in turn, (n,) float32 at 16 kHz."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    harmonics = np.arange(1, int(4000 / PITCH_HZ)) * PITCH_HZ
    sound = np.zeros(len(time))
    for number, formants in enumerate(VOWELS):
        weight = sum(1 / (1 + ((harmonics - formant) / BANDWIDTH_HZ) ** 2) for formant in formants)
        vowel = np.sin(2 * np.pi * time[:, None] * harmonics) @ weight
        sound += vowel * (np.floor(time / seconds * len(VOWELS)) == number)
    envelope = np.sin(np.pi * (time * len(VOWELS) / seconds % 1.0)) ** 0.5
    return (0.3 * sound * envelope / max(1e-9, float(np.abs(sound).max()))).astype(np.float32)
