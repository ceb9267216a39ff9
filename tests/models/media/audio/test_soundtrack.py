"""The sound of a result: in step with the pictures, whatever its codec."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.arrays import F32
from models.types import Limits
from tests import media_samples as samples
from tests.models.media.parts import write_numbered, write_part

LIMITS = Limits()


def shift_ms(before: F32, after: F32, rate: int) -> float:
    """Return how much later the second sound is, by cross correlation."""
    n = min(len(before), len(after))
    product = np.fft.irfft(np.fft.rfft(before[:n], 2 * n).conj() * np.fft.rfft(after[:n], 2 * n))
    late = int(np.argmax(product))
    return 1000 * (late if late < n else late - 2 * n) / rate


FORMATS = [".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".webm", ".ac3"]
SOUNDS = [
    ("voice.wav", 16_000, None),
    ("voice.wav", 96_000, None),
    ("voice.mp3", 44_100, None),
    ("voice.mp3", 22_050, None),
    ("voice.mp3", 8_000, None),
    ("voice.m4a", 16_000, None),
    ("voice.m4a", 44_100, None),
    ("voice.webm", 48_000, None),
    ("voice.mka", 44_100, "aac"),
    ("voice.mka", 44_100, "libmp3lame"),
    ("voice.mp4", 48_000, "alac"),
    ("voice.mp4", 44_100, "libmp3lame"),
    ("voice.ts", 44_100, "aac"),
    ("voice.avi", 44_100, "libmp3lame"),
    ("voice.opus", 48_000, None),
    ("voice.flac", 96_000, None),
    ("voice.ac3", 44_100, None),
]
PLAYED = (".mp3", ".m4a", ".aac")
NOT_COPIED = {("voice.wav", 16_000), ("voice.wav", 96_000), ("voice.mp3", 8_000)}


@pytest.mark.parametrize("suffix", [*FORMATS])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(60)])
@pytest.mark.parametrize("copies", [True, False])
def test_the_original_sound_stays_in_step(tmp_path: Path, suffix: str, fps: Fraction, copies: bool) -> None:
    """A click has the same time in the result, and sound and picture end together."""
    path = samples.sound(tmp_path / f"click{suffix}", samples.click(1.23, 48_000, 0.7), 48_000)
    sound = media.read_sound(path, "click", LIMITS)
    frames = round(sound.duration_s * fps)
    part = write_numbered(tmp_path / "part.mp4", 0, frames, fps)
    out = tmp_path / "result.mp4"
    facts = media.assemble_video([part], audio=path, out=out, frames=frames, fps=fps, metadata={}, copies_audio=copies)
    assert facts["audio_copied"] == (suffix not in (".wav", ".ogg") if copies else suffix in PLAYED)
    before, after = media.read_waveform(path, 48_000), media.read_waveform(out, 48_000)
    at = [int(np.argmax(np.abs(heard) > 0.15)) for heard in (before, after)]
    assert abs(at[0] - at[1]) < 96
    assert abs(len(after) / 48_000 - frames / fps) <= 1 / fps


@pytest.mark.parametrize(("name", "rate", "codec"), SOUNDS)
@pytest.mark.parametrize("copies", [True, False])
def test_sound_and_picture_begin_and_end_together(
    tmp_path: Path, name: str, rate: int, codec: str | None, copies: bool
) -> None:
    """Every codec is in step within a millisecond and as long as the pictures, at 60 frames a second."""
    wave = samples.speech(0.7567, rate) + samples.click(0.7567, rate, 0.3)
    path = samples.sound(tmp_path / name, wave, rate, codec=codec)
    sound = media.read_sound(path, name, LIMITS)
    frames = round(Fraction(sound.samples, sound.rate) * 60)
    part = write_part(tmp_path / "part.mp4", samples.numbered_frames(frames), frames, fps=Fraction(60))
    out = tmp_path / "result.mp4"
    facts = media.assemble_video(
        [part], audio=path, out=out, frames=frames, fps=Fraction(60), metadata={}, copies_audio=copies
    )
    is_played = sound.codec in ("aac", "mp3") or copies
    assert facts["audio_copied"] == (is_played and (name, rate) not in NOT_COPIED)
    with av.open(str(out)) as container:
        assert copies or container.streams.audio[0].codec_context.codec.canonical_name in ("aac", "mp3")
    before, after = media.read_waveform(path, 48_000), media.read_waveform(out, 48_000)
    assert abs(shift_ms(before, after, 48_000)) < 1
    assert abs(len(before) - len(after)) < 48
    assert abs(media.read_sound(out, "result", LIMITS).duration_s - frames / 60) <= 1 / 60


def test_the_sound_track_of_a_film_goes_along(tmp_path: Path) -> None:
    """Of a film as the voice only the sound is used."""
    film = samples.video(tmp_path / "film.mp4", 25, sound_wave=samples.speech(1.0))
    part = write_part(tmp_path / "part.mp4", samples.numbered_frames(25), 25)
    media.assemble_video([part], audio=film, out=tmp_path / "r.mp4", frames=25, fps=Fraction(25), metadata={})
    with av.open(str(tmp_path / "r.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert container.streams.audio[0].codec_context.name == "aac"
