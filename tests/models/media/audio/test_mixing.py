"""Mixes to one channel: a voice that is there is heard."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.arrays import F32
from models.musetalk.audio.resampling import read_speech
from models.types import Limits
from tests import media_samples as samples

VOICE = samples.speech(3.0, 48_000)
QUIET = np.zeros_like(VOICE)


def write_channels(path: Path, channels: F32, codec: str = "pcm_s16le", layout: str = "stereo") -> Path:
    """Write (channels, n) at 48 kHz."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=48_000, layout=layout)
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(stream.codec_context.format, layout, 48_000)
        frame = av.AudioFrame.from_ndarray(channels.astype(np.float32), "fltp", layout)
        frame.sample_rate = 48_000
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return path


def rms(values: F32) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


CANCELLING = {
    "reversed": [VOICE, -VOICE],
    "nearly reversed": [-0.9 * VOICE, VOICE],
    "half reversed": [VOICE, -0.5 * VOICE],
    "reversed later": [VOICE, np.concatenate([VOICE[:48_000], -VOICE[48_000:]])],
    "one side": [VOICE, QUIET],
    "with noise": [VOICE, -VOICE + samples.click(3.0, 48_000, 1.0)],
}


@pytest.mark.parametrize("kind", CANCELLING)
@pytest.mark.parametrize("suffix", [".wav", ".m4a", ".flac"])
def test_channels_that_cancel_are_heard(tmp_path: Path, kind: str, suffix: str) -> None:
    """Both mixes keep half of the louder channel's amplitude or more."""
    channels = np.stack(CANCELLING[kind])
    path = write_channels(tmp_path / f"voice{suffix}", channels, samples.SOUND_CODECS[suffix])
    wanted = 0.49 * max(map(rms, channels))
    assert rms(media.read_waveform(path)) >= wanted
    assert rms(read_speech(path)) >= wanted


def test_a_voice_in_the_centre_of_six_channels_is_heard(tmp_path: Path) -> None:
    """The mean of six has a sixth of it; the centre is taken."""
    channels = np.stack([QUIET, QUIET, VOICE, QUIET, QUIET, QUIET])
    path = write_channels(tmp_path / "voice.wav", channels, layout="5.1")
    assert rms(media.read_waveform(path)) >= 0.99 * rms(VOICE)
    assert rms(read_speech(path)) >= 0.99 * rms(VOICE)


def test_a_change_of_the_mix_makes_no_click(tmp_path: Path) -> None:
    """A steady tone whose one side turns over has no step in its mix."""
    tone = samples.tone(2.0, 48_000, 100)
    path = write_channels(tmp_path / "t.wav", np.stack([tone, np.concatenate([tone[:48_000], -tone[48_000:]])]))
    mixed = media.read_waveform(path, 48_000)
    assert np.abs(np.diff(mixed[:40_000])).max() < 0.01
    assert np.abs(np.diff(mixed[50_000:])).max() < 0.02


@pytest.mark.parametrize(
    ("wave", "word"),
    [
        (np.zeros(32_000, np.float32), "silent"),
        (samples.tone(2.0), "no voice"),
        (np.random.default_rng(3).normal(0, 0.01, 32_000).astype(np.float32), "no voice"),
        (samples.speech(2.0), ""),
        (0.05 * samples.speech(2.0), ""),
    ],
)
def test_a_sound_without_a_voice_is_noted(tmp_path: Path, wave: F32, word: str) -> None:
    """Silence, noise and tones are named; a voice is not, however low."""
    path = samples.sound(tmp_path / "voice.wav", wave)
    notes = media.read_sound(path, "voice.wav", Limits()).notes
    assert bool(notes) == bool(word)
    assert all(word in note and "voice.wav" in note for note in notes)
