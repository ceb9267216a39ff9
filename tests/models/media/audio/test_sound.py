"""Sound files of every format: their length, their samples, and what is refused."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from models import media
from models.musetalk.audio.resampling import read_speech
from models.types import EngineError, Limits
from tests import media_samples as samples
from tests.models.media.parts import write_numbered

LIMITS = Limits()
FORMATS = [".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".webm", ".ac3"]
FRAME_OF = {".aac": 2100, ".ac3": 1600, ".ogg": 128}
"""Samples by which formats without an exact length are longer than what went in."""


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [44_100, 16_000])
def test_every_format_of_sound_has_its_true_length(tmp_path: Path, suffix: str, rate: int) -> None:
    """The length is that of the decoded samples, without declared priming and padding."""
    if suffix == ".ac3" and rate == 16_000:
        rate = 48_000
    path = samples.sound(tmp_path / f"voice{suffix}", samples.speech(1.7, rate), rate)
    sound = media.read_sound(path, "voice", LIMITS)
    assert 0 <= sound.duration_s - 1.7 <= FRAME_OF.get(suffix, 2) / sound.rate
    heard = media.read_waveform(path, 16_000)
    assert heard.shape == (round(sound.duration_s * 16_000),)
    assert heard.dtype == np.float32


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".webm"])
def test_waveforms_start_at_time_zero(tmp_path: Path, suffix: str) -> None:
    """A click at 0.5 s is at 0.5 s for every codec."""
    path = samples.sound(tmp_path / f"click{suffix}", samples.click(1.0, 48_000, 0.5), 48_000)
    heard = media.read_waveform(path, 48_000)
    assert abs(int(np.argmax(np.abs(heard) > 0.15)) - 24_000) < 120


def test_the_sound_track_of_a_video_is_a_sound(tmp_path: Path) -> None:
    """A video may be the voice."""
    path = samples.video(tmp_path / "talk.mp4", 25, sound_wave=samples.speech(1.0), sound_rate=16_000)
    assert media.read_sound(path, "talk", LIMITS).duration_s == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize(("flags", "wanted"), [((0, 1), 2), ((1, 1), 1), ((0, 0), 1)])
def test_the_first_default_track_is_the_voice(tmp_path: Path, flags: tuple[int, int], wanted: int) -> None:
    """Of several sound tracks the one that players take is used, and a note says which."""
    path = write_tracks(tmp_path / "film.mkv", flags)
    assert any(f"2 sound tracks; track {wanted} (" in note for note in media.read_sound(path, "film", LIMITS).notes)
    heard = media.read_waveform(path)
    assert int(np.argmax(np.abs(np.fft.rfft(heard[:16_000])))) == pytest.approx(300 * wanted, abs=3)


def test_a_track_that_cannot_be_decoded_is_passed_over(tmp_path: Path) -> None:
    """Phones put spatial sound of an unknown codec beside AAC, as a default track, too."""
    path = write_tracks(tmp_path / "film.mkv", (1, 1))
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_XYZ", 1))
    heard = media.read_waveform(path)
    assert int(np.argmax(np.abs(np.fft.rfft(heard[:16_000])))) == pytest.approx(600, abs=3)


@pytest.mark.parametrize(("track", "wanted"), [(None, 1), (2, 2), ("de", 2), ("ger", 2), ("DEU", 2), ("eng", 1)])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_job_chooses_the_track(tmp_path: Path, suffix: str, track: object, wanted: int) -> None:
    """By number or language, for all that hear the sound afterwards, and for the result; a note says which."""
    path = write_tracks(tmp_path / f"film{suffix}", (1, 0))
    media.read_sound(path, "film", LIMITS, 1)
    sound = media.read_sound(path, "film", LIMITS, track)
    assert any(f"2 sound tracks; track {wanted} ({('eng', 'ger')[wanted - 1]}) is used" in note for note in sound.notes)
    part = write_numbered(tmp_path / "part.mp4", 0, round(sound.duration_s * 25))
    out = tmp_path / "r.mp4"
    media.assemble_video(
        [part], audio=path, out=out, frames=round(sound.duration_s * 25), fps=Fraction(25), metadata={}
    )
    for heard in (media.read_waveform(path), read_speech(path), media.read_waveform(out)):
        assert int(np.argmax(np.abs(np.fft.rfft(heard[:16_000])))) == pytest.approx(300 * wanted, abs=3)


@pytest.mark.parametrize("track", [3, 0, -1, "fra", "xx"])
def test_a_track_that_is_not_there_is_refused(tmp_path: Path, track: object) -> None:
    """The message lists the tracks that are there."""
    path = write_tracks(tmp_path / "film.mkv", (1, 0))
    with pytest.raises(EngineError, match=r"1 \(eng\), 2 \(ger\)") as refused:
        media.read_sound(path, "film", LIMITS, track)
    assert refused.value.code == "bad_option"


def write_tracks(path: Path, flags: tuple[int, int]) -> Path:
    """Write two tracks, tones of 300 and 600 Hz; `flags` says which are default tracks."""
    with av.open(str(path), "w", options={"default_mode": "passthrough"}) as output:
        streams = [output.add_stream("aac", rate=16_000, layout="mono") for _ in flags]
        for stream, flag in zip(streams, flags, strict=True):
            stream.disposition = Disposition(flag)
        for stream, language in zip(streams, ("eng", "ger"), strict=True):
            stream.metadata["language"] = language
        for number, stream in enumerate(streams):
            assert isinstance(stream, av.AudioStream)
            frame = av.AudioFrame.from_ndarray(samples.tone(1.5, hz=300 * (1 + number))[None], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
            output.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def hostile_sounds(folder: Path) -> Iterator[tuple[str, Path]]:
    text = folder / "text.wav"
    text.write_text("this is no sound " * 50)
    yield "audio_unreadable", text
    empty = folder / "empty.wav"
    empty.write_bytes(b"")
    yield "audio_empty", empty
    header = folder / "header.wav"
    with wave.open(str(header), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    yield "audio_empty", header
    yield "audio_too_short", samples.sound(folder / "short.wav", samples.tone(0.01))
    for suffix in (".wav", ".mp3", ".m4a", ".flac"):
        whole = samples.sound(folder / f"whole{suffix}", samples.speech(2.0))
        yield "audio_unreadable", samples.cut(whole, folder / f"cut{suffix}", 0.6)
    yield "audio_unreadable", samples.video(folder / "silent.mp4", 5)
    playlist = folder / "list.wav"
    playlist.write_text("#EXTM3U\n#EXTINF:2,\nfile:///etc/passwd\n")
    yield "audio_unreadable", playlist


def test_hostile_sounds_are_refused_by_name(tmp_path: Path) -> None:
    """Text, empty and cut files, silent videos and playlists each get a code, a reason and a hint."""
    for code, path in hostile_sounds(tmp_path):
        with pytest.raises(EngineError) as refused:
            media.read_sound(path, "voice.wav", LIMITS)
        assert (path.name, refused.value.code) == (path.name, code)
        assert "voice.wav" in refused.value.message
        assert refused.value.hint


def test_limits_of_sound(tmp_path: Path) -> None:
    """Length and size have limits that the message names."""
    path = samples.sound(tmp_path / "long.wav", samples.tone(3.0))
    with pytest.raises(EngineError, match="audio_too_long"):
        media.read_sound(path, "long.wav", Limits(audio_s=2.0))
    with pytest.raises(EngineError, match="media_too_large"):
        media.read_sound(path, "long.wav", Limits(media_bytes=1000))
