"""Sounds whose clock counts: gaps, late starts, clocks that start again."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.arrays import F32
from models.musetalk.audio.resampling import read_speech
from models.types import Limits
from tests import media_samples as samples
from tests.models.media.parts import write_numbered

LIMITS = Limits()
CLOCKED = [
    (".m4a", "aac"),
    (".mkv", "aac"),
    (".mkv", "libopus"),
    (".webm", "libopus"),
    (".opus", "libopus"),
    (".ts", "aac"),
    (".flv", "aac"),
    (".mkv", "pcm_s16le"),
]


def write_sparse(
    path: Path,
    wave: F32,
    codec: str = "aac",
    *,
    rate: int = 48_000,
    lost_s: tuple[float, float] = (0, 0),
    late_s: int = 0,
    film: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a sound without the packets of `lost_s`, `late_s` late; a film has pictures from 0 on."""
    with av.open(str(path), "w", options=options or {}) as output:
        if film:
            video = output.add_stream("libx264", rate=25)
            assert isinstance(video, av.VideoStream)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        stream = output.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(
            stream.codec_context.format, "mono", rate, frame_size=960 if codec[0] == "l" else 1024
        )
        packets = [packet for piece in [*resampler.resample(frame), None] for packet in stream.encode(piece)]
        if film:
            for _ in range(25):
                output.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "bgr24")))
            output.mux(video.encode(None))
        for packet in packets:
            assert packet.pts is not None
            if not lost_s[0] <= packet.pts * packet.time_base < lost_s[1]:
                packet.pts = packet.dts = packet.pts + round(late_s / packet.time_base)
                output.mux(packet)
    return path


def assemble(folder: Path, voice: Path) -> Path:
    sound = media.read_sound(voice, "voice", LIMITS)
    frames = round(sound.duration_s * 25)
    out = folder / "result.mp4"
    part = write_numbered(folder / "part.mp4", 0, frames)
    media.assemble_video([part], audio=voice, out=out, frames=frames, fps=Fraction(25), metadata={})
    return out


@pytest.mark.parametrize(("suffix", "codec"), CLOCKED)
def test_a_gap_is_silence(tmp_path: Path, suffix: str, codec: str) -> None:
    """A second in which nothing was sent is there, in what is heard and in the result."""
    wave = samples.tone(3.0, 48_000) + samples.click(3.0, 48_000, 2.5)
    path = write_sparse(tmp_path / f"voice{suffix}", wave, codec, lost_s=(1, 2))
    sound = media.read_sound(path, "voice", LIMITS)
    assert sound.duration_s == pytest.approx(3.0, abs=0.05)
    assert any("nothing was sent" in note for note in sound.notes)
    for heard in (media.read_waveform(path), read_speech(path), media.read_waveform(assemble(tmp_path, path))):
        assert np.abs(heard[17_600:31_000]).max() < 0.02
        assert np.abs(heard[8_000:15_000]).max() > 0.3
        assert abs(int(np.argmax(np.abs(heard))) / 16_000 - 2.5) < 0.03


def test_packets_lost_one_by_one_count(tmp_path: Path) -> None:
    """Each lost packet of 20 ms is 20 ms of silence."""
    wave = samples.tone(2.0, 48_000)
    for start in (0.5, 0.9, 1.3):
        path = write_sparse(tmp_path / "a.mkv", wave, "libopus", lost_s=(start, start + 0.02))
        assert media.read_sound(path, "a", LIMITS).duration_s == pytest.approx(2.0, abs=0.021)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".mkv", "libopus"), (".mov", "aac"), (".ts", "aac")])
def test_a_film_whose_sound_starts_late_is_silent_until_then(tmp_path: Path, suffix: str, codec: str) -> None:
    """The sound keeps its offset to the pictures of its film."""
    path = write_sparse(tmp_path / f"film{suffix}", samples.tone(1.5, 48_000), codec, late_s=1, film=True)
    assert media.read_sound(path, "film", LIMITS).duration_s == pytest.approx(2.5, abs=0.05)
    for heard in (media.read_waveform(path), read_speech(path), media.read_waveform(assemble(tmp_path, path))):
        assert np.abs(heard[:15_000]).max() < 0.02
        assert np.abs(heard[17_000:]).max() > 0.3


def test_a_live_stream_need_not_begin_at_zero(tmp_path: Path) -> None:
    """A sound alone, in pieces of a broadcast that began long before, has no silence in front."""
    options = {"movflags": "frag_keyframe+empty_moov"}
    for name in ("live.mp4", "live.ts", "live.webm"):
        codec = "libopus" if name.endswith("webm") else "aac"
        path = write_sparse(tmp_path / name, samples.tone(1.0, 48_000), codec, late_s=1000, options=options)
        assert media.read_sound(path, name, LIMITS).duration_s == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("late_s", [0, 50_000])
def test_clocks_that_start_again_go_on(tmp_path: Path, late_s: int) -> None:
    """Joined segments are played one after another, whether their clocks go back or leap."""
    pieces = [
        write_sparse(tmp_path / f"{late}.ts", samples.tone(1.0, 48_000), late_s=late).read_bytes()
        for late in (0, late_s)
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(pieces))
    assert media.read_sound(path, "joined", LIMITS).duration_s == pytest.approx(2.0, abs=0.09)
    assert len(read_speech(path)) == pytest.approx(32_000, abs=1500)


@pytest.mark.parametrize("suffix", [".m4a", ".mkv"])
def test_both_passes_agree_to_the_sample(tmp_path: Path, suffix: str) -> None:
    """What the preview hears and what Whisper hears have the same samples."""
    path = write_sparse(tmp_path / f"v{suffix}", samples.speech(3.0), rate=16_000, lost_s=(1, 2), late_s=1, film=True)
    assert np.array_equal(media.read_waveform(path), read_speech(path))
