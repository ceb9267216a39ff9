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


@pytest.mark.parametrize("level_db", [-70, -60, -40, -20])
@pytest.mark.parametrize("colour", ["white", "pink", "swelling"])
def test_noise_alone_keeps_the_mouth_shut(colour: str, level_db: float) -> None:
    """Hiss, rumble and a fan that swells open nothing, however loud they are."""
    count = 4 * RATE
    noise = np.random.default_rng(1).normal(0, 1, count)
    if colour == "pink":
        noise = np.fft.irfft(np.fft.rfft(noise) / np.sqrt(np.maximum(1, np.arange(count // 2 + 1))))
    if colour == "swelling":
        noise *= 1 + 0.5 * np.sin(2 * np.pi * 0.3 * np.arange(count) / RATE)
    noise *= 10 ** (level_db / 20) / noise.std()
    assert make_mouth_curve(noise.astype(np.float32), 100, FPS)[:, 0].max() < 0.1


def test_speech_in_noise_closes_in_its_pauses() -> None:
    """With the noise 5 dB below the speech the mouth moves as without it, and rests before and after."""
    voice, _ = speak("My mother bought a big blue balloon for the baby.", "en")
    spoken = np.concatenate([np.zeros(RATE, np.float32), voice, np.zeros(RATE, np.float32)])
    noise = np.random.default_rng(2).normal(0, voice.std() / 10 ** (5 / 20), len(spoken)).astype(np.float32)
    frames = round(len(spoken) / RATE * FPS)
    clean, noisy = (make_mouth_curve(sound, frames, FPS)[:, 0] for sound in (spoken, spoken + noise))
    assert np.corrcoef(clean, noisy)[0, 1] > 0.9
    assert max(noisy[:20].max(), noisy[-20:].max()) < 0.1


def test_chords_keep_the_mouth_nearly_shut() -> None:
    """Plucked chords without a voice, one each half second, are no speech."""
    seconds = np.arange(RATE // 2) / RATE
    partials = [(ratio * tone, tone) for ratio in (1, 1.26, 1.5) for tone in range(1, 7)]
    chords = [
        sum(np.sin(2 * np.pi * root * ratio * seconds) / tone for ratio, tone in partials)
        for root in (220, 262, 196, 175, 220, 294, 262, 247)
    ]
    music = np.concatenate([chord * np.exp(-3 * seconds) for chord in chords]) * 0.05
    opening = make_mouth_curve(music.astype(np.float32), 100, FPS)[:, 0]
    assert opening.mean() < 0.15
    assert np.percentile(opening, 75) < 0.25


def test_the_shortest_sound_has_a_curve() -> None:
    """Forty milliseconds give one frame."""
    assert make_mouth_curve(np.zeros(640, np.float32), 1, FPS).shape == (1, 2)
