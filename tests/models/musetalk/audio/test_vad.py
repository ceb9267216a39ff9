"""Pauses: where the mouth may close, measured on spoken sentences with 2 s between them."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from models.musetalk.audio.features import CHUNK_SAMPLES
from models.musetalk.audio.vad import detect_voice, measure_levels
from tests.models.phonemes import RATE, speak

Floats = npt.NDArray[np.float32]

SENTENCES = (
    "Please keep these cheap green beans.",
    "My father parked the car far apart.",
    "Mama and papa bought a big apple pie.",
)
MARGIN_S = 0.3
"""About each sentence: the mouth opens 0.1 s early, closes as late, and takes 0.16 s to fade."""


@cache
def spoken(voice: str) -> tuple[Floats, list[tuple[float, float]]]:
    """The sentences with 2 s of silence before, between and after them, and from when to when each is heard."""
    parts, heard, at_s = [np.zeros(2 * RATE, np.float32)], [], 2.0
    for text in SENTENCES:
        wave, phonemes = speak(text, voice)
        said = [phoneme for phoneme in phonemes if phoneme.ipa]
        heard.append((at_s + said[0].start_s, at_s + said[-1].stop_s))
        parts += [wave, np.zeros(2 * RATE, np.float32)]
        at_s += len(wave) / RATE + 2
    return np.concatenate(parts), heard


def with_noise(wave: Floats, ratio_db: float) -> Floats:
    loud = np.sqrt((wave[wave != 0] ** 2).mean())
    noise = np.random.default_rng(0).normal(0, loud * 10 ** (-ratio_db / 20), len(wave))
    return (wave + noise).astype(np.float32)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(12), Fraction(120)])
@pytest.mark.parametrize("noise_db", [None, 30, 20])
@pytest.mark.parametrize("voice", ["en", "en-us+f3", "en-us+m7"])
def test_pauses_close_and_words_do_not(voice: str, noise_db: float | None, rate: Fraction) -> None:
    """Every frame in a 2 s pause is closed; 99 of 100 frames in a sentence are open. Steady noise may be there."""
    wave, heard = spoken(voice)
    wave = wave if noise_db is None else with_noise(wave, noise_db)
    frames = range(int(len(wave) * rate / RATE))
    found = detect_voice(measure_levels([wave]), rate, frames)
    at_s = (np.arange(len(frames)) + 0.5) / float(rate)
    speaking = np.any([(start <= at_s) & (at_s < stop) for start, stop in heard], 0)
    near = np.any([(start - MARGIN_S <= at_s) & (at_s < stop + MARGIN_S) for start, stop in heard], 0)
    assert found[~near].max() == 0
    assert np.count_nonzero(~near) > 4 * rate
    assert (found[speaking] > 0.5).mean() >= 0.99


def test_silence_hiss_and_tones() -> None:
    """Silence and a steady hiss are no voice, a loud held note is."""
    noise = np.random.default_rng(0).normal(0, 0.001, 2 * RATE).astype(np.float32)
    note = (0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)).astype(np.float32)
    for wave, expected in ((np.zeros(2 * RATE, np.float32), 0), (noise, 0), (note, 1)):
        assert (detect_voice(measure_levels([wave]), Fraction(25), range(50)) == expected).all()


def test_fades_are_gentle_and_clicks_are_nothing() -> None:
    """From closed to open takes at least four frames of 25 fps; a click of 10 ms opens no mouth."""
    wave, _ = spoken("en")
    wave = wave.copy()
    wave[RATE : RATE + 160] = 0.5
    found = detect_voice(measure_levels([wave]), Fraction(25), range(len(wave) // 640))
    assert found[:40].max() == 0
    assert 0.2 < np.abs(np.diff(found)).max() < 0.45


def test_pieces_and_spans_make_no_difference() -> None:
    """The level of a sound in pieces of 30 s is that of the whole; a span has the frames of the whole."""
    wave = np.tile(spoken("en")[0], 4)
    level = measure_levels([wave])
    assert len(wave) > CHUNK_SAMPLES
    assert np.array_equal(measure_levels([wave[:CHUNK_SAMPLES], wave[CHUNK_SAMPLES:]]), level)
    whole = detect_voice(level, Fraction(25), range(900))
    assert np.array_equal(detect_voice(level, Fraction(25), range(333, 512)), whole[333:512])


def test_levels_are_decibels_of_full_scale() -> None:
    """A full sine has -3 dB, a tenth of it -23 dB; there may be no sound at all, or less than a hop."""
    sine = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    assert np.abs(measure_levels([sine]) + 3).max() < 0.2
    assert np.abs(measure_levels([sine / np.float32(10)]) + 23).max() < 0.2
    assert measure_levels([]).shape == (0,)
    assert measure_levels([sine[:100]]).shape == (1,)
    assert detect_voice(measure_levels([]), Fraction(25), range(3)).tolist() == [0, 0, 0]
