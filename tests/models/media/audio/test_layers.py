"""The mix of several sounds: what is heard when, and how loud."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.arrays import F32
from models.media.audio.layers import MIX_RATE, PEAK, mix_layers, write_voice
from models.media.audio.sound import read_waveform, scan_sound
from models.types import Layer
from tests.media_samples import sound, tone


def mix(layers: list[tuple[Path, Layer]], seconds: float) -> F32:
    return np.concatenate(list(mix_layers(layers, round(seconds * MIX_RATE))), axis=1)


def level(part: F32, start_s: float, stop_s: float) -> float:
    """Return the root mean square between two seconds of the first channel."""
    return float(np.sqrt(np.mean(part[0, round(start_s * MIX_RATE) : round(stop_s * MIX_RATE)] ** 2)))


def test_each_layer_is_heard_at_its_time_and_level(tmp_path: Path) -> None:
    """It begins, ends and is silent where it says, and keeps its level to a hundredth."""
    path = sound(tmp_path / "a.wav", tone(3.0))
    usual = level(mix([(path, Layer("audio"))], 3), 0.5, 2.5)
    assert usual == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
    late = mix([(path, Layer("audio", start_s=1.0, stop_s=2.0))], 3)
    assert [level(late, *times) for times in ((0, 0.99), (1.1, 1.9), (2, 3))] == pytest.approx([0, usual, 0], abs=0.01)
    own = mix([(path, Layer("avatar", mute_s=(1.0, 2.0)))], 3)
    assert [level(own, *times) for times in ((0, 1), (1.02, 1.98), (2, 2.9))] == pytest.approx(
        [usual, 0, usual], abs=0.01
    )
    quiet = mix([(path, Layer("soundtrack", gain_db=-20))], 3)
    assert level(quiet, 0.5, 2.5) == pytest.approx(usual / 10, rel=0.01)


def test_a_sum_never_clips(tmp_path: Path) -> None:
    """Two loud sounds are lowered together to the peak; one alone keeps its samples."""
    loud = sound(tmp_path / "a.wav", 1.8 * tone(1.0))
    other = sound(tmp_path / "b.wav", 1.8 * tone(1.0))
    both = mix([(loud, Layer("audio")), (other, Layer("soundtrack"))], 1)
    assert np.abs(both).max() == pytest.approx(PEAK, abs=1e-4)
    half = sound(tmp_path / "c.wav", tone(1.0, MIX_RATE), MIX_RATE)
    assert np.allclose(mix([(half, Layer("audio"))], 1)[0], read_waveform(half, MIX_RATE), atol=1e-6)


def test_a_voice_and_its_music_give_the_original(tmp_path: Path) -> None:
    """Sounds that were separated are added without a change of level, in as many channels as the richest has."""
    voice = sound(tmp_path / "a.wav", 0.4 * tone(1.0, MIX_RATE), MIX_RATE)
    music = sound(tmp_path / "b.wav", 0.4 * tone(1.0, MIX_RATE, 880), MIX_RATE, channels=2)
    both = mix([(voice, Layer("audio")), (music, Layer("soundtrack"))], 1)
    assert both.shape == (2, MIX_RATE)
    original = read_waveform(voice, MIX_RATE) + read_waveform(music, MIX_RATE)
    assert np.abs(both[1] - original).max() < 0.15, "the channels of the music are as loud as they were"


@pytest.mark.parametrize("skip_s", [0.0, 0.25, -0.25, 5.0])
def test_the_sound_that_a_mouth_follows_is_as_long_as_its_frames(tmp_path: Path, skip_s: float) -> None:
    """A part of the audio, with silence where there is none."""
    wave = tone(1.0)
    source, target = sound(tmp_path / "a.wav", wave), tmp_path / "voice-0.wav"
    write_voice(source, target, skip_s=skip_s, length_s=1.5, tick=lambda _: None)
    heard = read_waveform(target)
    assert len(heard) == scan_sound(target, "v", 99).sound.samples == 24_000
    skip = round(16_000 * skip_s)
    wanted = np.concatenate([np.zeros(max(0, -skip)), wave[max(0, skip) :], np.zeros(24_000)])[:24_000]
    assert np.abs(heard - wanted).max() < 1e-3
