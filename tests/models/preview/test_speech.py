"""The mouth against espeak-ng's own phonemes: sentences and voices that the viseme table was not fitted to."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from models.arrays import Floats
from models.preview.speech import SPEED_PER_S, make_mouth_curve
from tests.models.phonemes import RATE, speak

FPS = Fraction(25)
SENTENCES = (
    "Mama and papa bought a big apple pie at the market. Who knew it was so good?",
    "Please keep these cheap green beans. My father parked the car far apart.",
    "You should move slowly, Joe. Bob, Pam and Mabel map the beach. See the deep blue sea.",
)
VOICES = ("en-us+f3", "en-us+m7", "en")
SOUNDS = {
    "a": {"ɑː", "ɑːɹ", "a", "aː", "aɪ", "aʊ", "æ"},
    "i/e": {"iː", "i", "ɪ", "e", "eɪ", "ɛ"},
    "m/b/p": {"m", "b", "p"},
    "o/u": {"oʊ", "oː", "oːɹ", "uː", "ɔː", "ʊ"},
    "silence": {""},
}


@cache
def measured() -> dict[str, Floats]:
    """All frames in which a kind of sound is heard: (n, 2) opening and spread."""
    found: dict[str, list[Floats]] = {kind: [] for kind in SOUNDS}
    for voice in VOICES:
        for text in SENTENCES:
            waveform, phonemes = speak(text, voice)
            curve = make_mouth_curve(waveform, round(len(waveform) / RATE * FPS), FPS)
            middle_s = (np.arange(len(curve)) + 0.5) / float(FPS)
            for phoneme in phonemes:
                heard = curve[(middle_s >= phoneme.start_s) & (middle_s < phoneme.stop_s)]
                for kind, symbols in SOUNDS.items():
                    if phoneme.ipa in symbols:
                        found[kind].append(heard)
    return {kind: np.concatenate(frames) for kind, frames in found.items()}


def test_vowels_open_and_lips_close() -> None:
    """Over more than 300 frames, a opens wider than i and e, these wider than m, b, p, and silence is closed."""
    frames = measured()
    assert sum(map(len, frames.values())) >= 300
    opening = {kind: float(values[:, 0].mean()) for kind, values in frames.items()}
    assert opening["a"] > opening["i/e"] > opening["m/b/p"] > opening["silence"]
    assert opening["a"] >= 0.6
    assert opening["m/b/p"] <= 0.25
    assert opening["silence"] <= 0.1


def test_rounded_vowels_are_told_from_spread_ones() -> None:
    """Lips are rounded for o and u, and spread for i and e."""
    frames = measured()
    assert frames["i/e"][:, 1].mean() - frames["o/u"][:, 1].mean() >= 0.3


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_lips_have_a_top_speed(fps: Fraction) -> None:
    """From one frame to the next the mouth never jumps, neither open nor round."""
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
