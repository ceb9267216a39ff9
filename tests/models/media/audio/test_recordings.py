"""Recordings as people have them, which are right as they are: what is there is used."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.musetalk.audio.resampling import read_speech
from models.types import Limits
from tests import media_samples as samples
from tests.models.media.audio.test_clock import write_sparse

LIMITS = Limits()


def measure_s(path: Path) -> float:
    """Return the length of a sound that both passes can read."""
    sound = media.read_sound(path, path.name, LIMITS)
    assert len(media.read_waveform(path)) == round(sound.duration_s * 16_000)
    return sound.duration_s


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_an_ogg_without_its_end_page_is_read(tmp_path: Path, suffix: str) -> None:
    """A recorder that dies writes no last page."""
    whole = samples.sound(tmp_path / f"whole{suffix}", samples.speech(3.0, 48_000), 48_000)
    data = whole.read_bytes()
    path = tmp_path / f"voice{suffix}"
    path.write_bytes(data[: data.rindex(b"OggS")])
    assert 0.9 < measure_s(path) <= 3.01


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_the_wav_of_a_dead_recorder_is_read(tmp_path: Path, size: int) -> None:
    """Its sizes were never filled in."""
    path = samples.speech_wav(tmp_path / "voice.wav", 1.5)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = data[4:8] = struct.pack("<I", size)
    path.write_bytes(data)
    assert measure_s(path) == pytest.approx(1.5, abs=0.01)


def test_a_broadcast_wave_and_rf64_are_read(tmp_path: Path) -> None:
    """A chunk in front of the format, and sizes of 64 bits, change nothing."""
    plain = samples.speech_wav(tmp_path / "plain.wav", 1.0).read_bytes()
    bext = b"bext" + struct.pack("<I", 602) + b"made by a recorder".ljust(602, b"\0")
    at = plain.index(b"fmt ")
    path = tmp_path / "voice.wav"
    path.write_bytes(plain[:4] + struct.pack("<I", len(plain) - 8 + len(bext)) + plain[8:at] + bext + plain[at:])
    assert measure_s(path) == 1.0
    path = tmp_path / "large.wav"
    with av.open(str(path), "w", options={"rf64": "always"}) as output:
        stream = output.add_stream("pcm_s16le", rate=16_000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray((samples.speech(1.0)[None] * 32767).astype(np.int16), "s16", "mono")
        frame.sample_rate = 16_000
        output.mux([*stream.encode(frame), *stream.encode(None)])
    assert path.read_bytes().startswith(b"RF64")
    assert measure_s(path) == 1.0


def test_a_caf_is_read(tmp_path: Path) -> None:
    """Apple's container of any codec."""
    assert measure_s(samples.sound(tmp_path / "v.caf", samples.speech(1.0), codec="pcm_s16le", container="caf")) == 1.0


def test_joined_mp3s_are_read_to_the_end(tmp_path: Path) -> None:
    """The first one's header states its own length alone."""
    one = samples.sound(tmp_path / "one.mp3", samples.speech(1.5, 48_000), 48_000).read_bytes()
    path = tmp_path / "voice.mp3"
    path.write_bytes(one + one)
    assert measure_s(path) == pytest.approx(3.0, abs=0.12)


def test_a_direct_current_offset_is_no_voice_lost(tmp_path: Path) -> None:
    """A sound beside the zero line keeps its voice."""
    voice = samples.speech(2.0)
    path = samples.sound(tmp_path / "voice.wav", voice + np.float32(0.3))
    assert media.read_sound(path, "voice.wav", LIMITS).duration_s == 2.0
    heard = media.read_waveform(path)
    assert float((heard - heard.mean()).std()) == pytest.approx(float(voice.std()), rel=0.02)


@pytest.mark.parametrize("suffix", [".mp4", ".mp3"])
def test_a_cover_is_no_obstacle(tmp_path: Path, suffix: str) -> None:
    """The picture of an album, which stands beside the sound as a track, is passed over."""
    path = tmp_path / f"voice{suffix}"
    codec = samples.SOUND_CODECS.get(suffix, "aac")
    cover = samples.picture(tmp_path / "cover.png").read_bytes()
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=48_000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        art = output.add_stream("png", rate=1)
        assert isinstance(art, av.VideoStream)
        art.width, art.height, art.pix_fmt = 90, 60, "rgb24"
        art.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet(cover)
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = art, 0, 0, True
        frame = av.AudioFrame.from_ndarray(samples.speech(1.0, 48_000)[None], "fltp", "mono")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(stream.codec_context.format, "mono", 48_000)
        pieces = [piece for made in (*resampler.resample(frame), None) for piece in stream.encode(made)]
        output.mux([packet, *pieces])
    assert measure_s(path) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".m4a", "aac"), (".mkv", "aac"), (".ts", "aac"), (".flv", "aac"), (".mkv", "pcm_s16le")]
)
@pytest.mark.parametrize("seed", range(3))
def test_both_passes_have_the_same_gaps_and_starts(tmp_path: Path, suffix: str, codec: str, seed: int) -> None:
    """Wherever packets are lost and however late a sound starts, both passes have the same samples."""
    draw = np.random.default_rng(seed)
    start, length = draw.uniform(0.3, 1.5), draw.uniform(0.1, 1.0)
    path = write_sparse(
        tmp_path / f"v{suffix}",
        samples.speech(3.0),
        codec,
        rate=16_000,
        lost_s=(start, start + length),
        late_s=int(draw.integers(0, 3)),
        film=suffix != ".flv",
    )
    assert np.array_equal(media.read_waveform(path), read_speech(path))
