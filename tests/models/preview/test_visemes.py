"""Shapes of the mouth for the phonemes of espeak-ng, in sentences and voices outside of the fit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from models.arrays import Floats
from models.preview import speech
from models.preview.speech import make_mouth_curve
from tests.models.phonemes import RATE, speak
from tests.models.preview.spoken import FPS, SENTENCES

VOICES = ("en-us+f3", "en-us+m7", "en")
SOUNDS = {
    "a": {"ɑː", "ɑːɹ", "a", "aː", "aɪ", "aʊ", "æ"},
    "i/e": {"iː", "i", "ɪ", "e", "eɪ", "ɛ"},
    "m/b/p": {"m", "b", "p"},
    "o/u": {"oʊ", "oː", "oːɹ", "uː", "ɔː", "ʊ"},
    "silence": {""},
}


@cache
def measure_shapes() -> dict[str, Floats]:
    """Return opening and spread, (n, 2), of all frames with a kind of sound."""
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
    frames = measure_shapes()
    assert sum(map(len, frames.values())) >= 300
    opening = {kind: float(values[:, 0].mean()) for kind, values in frames.items()}
    assert opening["a"] > opening["i/e"] > opening["m/b/p"] > opening["silence"]
    assert opening["a"] >= 0.6
    assert opening["m/b/p"] <= 0.25
    assert opening["silence"] <= 0.1


def test_rounded_vowels_are_told_from_spread_ones() -> None:
    """Lips are rounded for o and u, and spread for i and e."""
    frames = measure_shapes()
    assert frames["i/e"][:, 1].mean() - frames["o/u"][:, 1].mean() >= 0.3


def test_a_longer_lead_costs_phonemes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lips that lead by a frame or two bring a and m, b, p nearer to each other: the lead is shorter."""

    def measure_contrast(frames: dict[str, Floats]) -> float:
        return float(frames["a"][:, 0].mean() - frames["m/b/p"][:, 0].mean())

    chosen = measure_contrast(measure_shapes())
    for lead_hops in (4, 8):
        monkeypatch.setattr(speech, "_LEAD_HOPS", lead_hops)
        assert measure_contrast(measure_shapes.__wrapped__()) < chosen - 0.1
