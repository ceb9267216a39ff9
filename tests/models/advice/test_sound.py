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


def test_the_levels_of_speakers(voice: Floats) -> None:
    """Voices that are far apart are told; one voice, or two alike, are not."""
    assert advise_on_levels([voice, 0.1 * voice]).keys() == {"sound_levels"}
    assert advise_on_levels([voice, 0.7 * voice]) == {}
    assert advise_on_levels([voice]) == {}
