"""Sounds for Whisper: the gliding, speech-like signal from which the golden windows were made."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

Int16 = npt.NDArray[np.int16]


def synthetic(seconds: float, rate: int = 16_000, channels: int = 1) -> Int16:
    """(n, channels): harmonics that glide, in the rhythm of syllables, and a little noise."""
    t = np.arange(round(seconds * rate)) / rate
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.37 * t) + 25 * np.sin(2 * np.pi * 1.3 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k**1.2 for k in range(1, 16))
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 3.1 * t) * np.sin(2 * np.pi * 0.21 * t + 0.4)
    noise = np.random.RandomState(7).random_sample(len(t)) - 0.5
    left = np.clip(0.18 * voice * syllables + 0.02 * noise, -1, 1)
    sides = [left, 0.6 * np.roll(left, 37)][:channels]
    return np.round(np.stack(sides, 1) * 32767).astype(np.int16)


def wav(path: Path, samples: Int16, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path
