"""Advice about made-up sounds: each fault of the voice is told, and it alone."""

from __future__ import annotations

import numpy as np
import pytest

from models import media
from models.advice.sound import advise_on_levels, advise_on_voice
from models.arrays import Floats
from models.preview.speech import RATE
from tests.share import EXAMPLES


@pytest.fixture(scope="module")
def voice() -> Floats:
    return media.read_waveform(EXAMPLES / "hello.wav", RATE)


def spoil(fault: str, voice: Floats) -> Floats:
    """Return the voice with a fault."""
    noise = np.random.default_rng(0).normal(0, 1, len(voice)).astype(np.float32)
    at_s = np.arange(len(voice), dtype=np.float32) / RATE
    halves = np.where(at_s < at_s[-1] / 2, np.float32(1), np.float32(0.1))
    spoilt: dict[str, Floats] = {
        "sound_no_voice": 0.1 * np.sin(2 * np.pi * 220 * at_s) + 0.1 * np.sin(2 * np.pi * 277 * at_s),
        "sound_clipped": np.clip(6 * voice, -1, 1),
        "sound_noisy": voice + 0.3 * np.sqrt((voice**2).mean()) * noise,
        "sound_quiet": 0.01 * voice,
        "sound_uneven": halves * voice,
    }
    return spoilt[fault]


@pytest.mark.parametrize("fault", ["sound_no_voice", "sound_clipped", "sound_noisy", "sound_quiet", "sound_uneven"])
def test_a_fault_is_told(voice: Floats, fault: str) -> None:
    """By its code, with a sentence that says what to do; the voice itself has none."""
    advice = advise_on_voice(spoil(fault, voice))
    assert advice.keys() == {fault}
    assert ":" in advice[fault]
    assert advise_on_voice(voice) == {}


@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_a_clipped_recording_may_be_quiet_again(voice: Floats, gain: float) -> None:
    """A peak that is cut off stays flat when the level is lowered; a loud voice that is not cut is none."""
    whole = voice / np.abs(voice).max()
    assert "sound_clipped" in advise_on_voice(gain * np.clip(1.5 * whole, -1, 1))
    assert advise_on_voice(gain * whole) == {}


def test_silence_and_a_click() -> None:
    """No voice is heard in silence; a sound of some samples is no matter for advice."""
    assert advise_on_voice(np.zeros(RATE, np.float32)).keys() == {"sound_no_voice"}
    assert advise_on_voice(np.zeros(10, np.float32)) == {}


def make_melody(seconds: int) -> Floats:
    """Return plucked notes, two in a second."""
    at_s = np.arange(RATE // 2) / RATE
    pitches = np.random.default_rng(1).choice([220.0, 247.0, 262.0, 330.0, 392.0], 2 * seconds)
    notes = [np.exp(-3 * at_s) * sum(np.sin(2 * np.pi * hz * n * at_s) / n for n in range(1, 6)) for hz in pitches]
    return (0.2 * np.concatenate(notes)).astype(np.float32)


def make_drums(seconds: int) -> Floats:
    """Return beats of noise, three in a second."""
    beat = np.random.default_rng(1).normal(0, 0.3, RATE // 3) * np.exp(-np.arange(RATE // 3) / 400)
    return np.tile(beat, 3 * seconds).astype(np.float32)


def test_music_is_no_voice(voice: Floats) -> None:
    """Notes and beats change as speech does, and are told from it by their pitch; a voice over them is one."""
    for music in (make_melody(4), make_drums(4)):
        assert advise_on_voice(music).keys() == {"sound_no_voice"}
        behind = np.resize(music, len(voice)) * (0.05 * np.abs(voice).max() / np.abs(music).max())
        assert "sound_no_voice" not in advise_on_voice(voice + behind)


def test_pauses_are_no_quiet_speakers(voice: Floats) -> None:
    """Neither a long pause in a noisy recording, nor a second in which a word ends."""
    noise = 0.003 * np.random.default_rng(2).normal(0, 1, 3 * len(voice)).astype(np.float32)
    assert advise_on_voice(np.concatenate([voice, 0 * voice, voice]) + noise) == {}
    assert advise_on_voice(voice[: RATE // 2 * 3]) == {}


def test_the_levels_of_speakers(voice: Floats) -> None:
    """Voices that are far apart are told; one voice, or two alike, are not."""
    assert advise_on_levels([voice, 0.1 * voice]).keys() == {"sound_levels"}
    assert advise_on_levels([voice, 0.7 * voice]) == {}
    assert advise_on_levels([voice]) == {}
