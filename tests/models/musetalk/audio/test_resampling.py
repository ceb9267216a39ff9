"""Sounds of all kinds, read as Whisper takes them."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest

from models.musetalk.audio.resampling import read_speech
from tests import media_samples
from tests.models.musetalk import voices


@pytest.mark.filterwarnings("ignore:.* is deprecated and slated for removal:DeprecationWarning")
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_sound_is_read_as_librosa_reads_it(tmp_path: Path, rate: int) -> None:
    """Bit for bit, channels and number of samples included."""
    for channels in (1, 2):
        path = voices.wav(tmp_path / "voice.wav", voices.synthetic(1.2345, rate, channels), rate)
        assert np.array_equal(read_speech(path), librosa.load(path, sr=16_000)[0])


@pytest.mark.parametrize("suffix", [".mp3", ".m4a", ".ogg", ".webm", ".flac"])
def test_other_formats_are_in_step(tmp_path: Path, suffix: str) -> None:
    """A click lies where it was, in formats with priming and padding too."""
    path = media_samples.sound(tmp_path / f"click{suffix}", media_samples.click(1.0, 48_000, 0.6), 48_000)
    samples = read_speech(path)
    assert abs(len(samples) - 16_000) <= 700
    loud = np.abs(samples)
    assert abs(int((loud > loud.max() / 2).argmax()) - 9_600) <= 32
