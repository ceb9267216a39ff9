"""The curve of the mouth: its speed, its silence, its length."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from models.preview.speech import SPEED_PER_S, make_mouth_curve
from tests.models.phonemes import RATE, speak
from tests.models.preview.spoken import FPS, SENTENCES


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_lips_have_a_top_speed(fps: Fraction) -> None:
    """From one frame to the next the mouth never jumps."""
    waveform, _ = speak(SENTENCES[0], "en")
    curve = make_mouth_curve(waveform, round(len(waveform) / RATE * fps), fps)
    assert np.abs(np.diff(curve, axis=0)).max() <= SPEED_PER_S / float(fps) + 1e-5
    assert curve[:, 0].min() >= 0
    assert curve[:, 0].max() <= 1


def test_silence_and_noise_keep_the_mouth_shut() -> None:
    """Digital silence is shut, and a steady hiss under speech doesn't open the mouth in its pauses."""
    assert make_mouth_curve(np.zeros(RATE, np.float32), 25, FPS)[:, 0].max() == 0
    voice, _ = speak("Go home now.", "en")
    spoken = np.concatenate([np.zeros(RATE, np.float32), voice, np.zeros(RATE, np.float32)])
    hiss = np.random.default_rng(0).normal(0, float(voice.std()) / 30, len(spoken)).astype(np.float32)
    curve = make_mouth_curve(spoken + hiss, round(len(spoken) / RATE * FPS), FPS)
    assert curve[:20, 0].max() < 0.1
    assert curve[:, 0].max() > 0.5


def test_the_shortest_sound_has_a_curve() -> None:
    """Forty milliseconds give one frame."""
    assert make_mouth_curve(np.zeros(640, np.float32), 1, FPS).shape == (1, 2)
