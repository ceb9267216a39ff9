"""Headers whose length is not that of the file: whole frames are used, broken ones refused."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import pytest

from models import media
from models.types import EngineError, Limits
from tests import media_samples as samples

LIMITS = Limits()


def list_ends(path: Path) -> list[int]:
    """Return where the packets of a flac or an mp3 end in the file."""
    with av.open(str(path)) as container:
        return [packet.pos + packet.size for packet in container.demux() if packet.size and packet.pos is not None]


@pytest.mark.parametrize("suffix", [".flac", ".mp3"])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_lossless_cut_is_used_and_a_broken_frame_refused(tmp_path: Path, suffix: str, rate: int) -> None:
    """The header has the old length: between frames a note says so, inside of one it is cut off."""
    whole = samples.sound(tmp_path / f"whole{suffix}", samples.speech(3.0, rate), rate)
    data, ends = whole.read_bytes(), list_ends(whole)
    path = tmp_path / f"cut{suffix}"
    for end in ends[len(ends) // 3 : len(ends) // 2]:
        path.write_bytes(data[:end])
        sound = media.read_sound(path, "cut", LIMITS)
        assert 0.5 < sound.duration_s < 2
        assert any("the header of cut says 3.00 s" in note for note in sound.notes)
        for missing in (1, 7, 40, -5):
            path.write_bytes(data[: end - missing])
            with pytest.raises(EngineError, match="cut is cut off"):
                media.read_sound(path, "cut", LIMITS)


def test_a_webm_whose_length_is_stale_is_used(tmp_path: Path) -> None:
    """A remux may keep a longer length; a file that ends inside of a block is refused."""
    whole = samples.sound(tmp_path / "whole.webm", samples.speech(2.0, 48_000), 48_000)
    data = whole.read_bytes()
    at = data.index(b"\x44\x89\x88") + 3
    path = tmp_path / "stale.webm"
    path.write_bytes(data[:at] + struct.pack(">d", 5000.0) + data[at + 8 :])
    sound = media.read_sound(path, "stale", LIMITS)
    assert sound.duration_s == pytest.approx(2.0, abs=0.01)
    assert sound.notes
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(EngineError, match="stale is cut off"):
        media.read_sound(path, "stale", LIMITS)


def test_an_mp4_is_measured_by_its_packets(tmp_path: Path) -> None:
    """A stale length of the track is no loss; a file without its last bytes is."""
    whole = samples.sound(tmp_path / "whole.m4a", samples.speech(2.0), 16_000, options={"movflags": "faststart"})
    data = bytearray(whole.read_bytes())
    at = data.index(b"mdhd") + 4 + 4 + 8
    rate, length = struct.unpack(">II", data[at : at + 8])
    data[at + 4 : at + 8] = struct.pack(">I", length + 3 * rate)
    path = tmp_path / "stale.m4a"
    path.write_bytes(data)
    assert media.read_sound(path, "stale", LIMITS).duration_s == pytest.approx(2.0, abs=0.07)


@pytest.mark.parametrize(
    "claim", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFBF, 2_000_000_000, 1_000_000_000, 0x0FFFFFFF, 100_000_000, 0x3FFFFFDB]
)
def test_an_invented_length_of_a_wav_is_ignored(tmp_path: Path, claim: int) -> None:
    """Speech engines that stream write a length before they know it."""
    path = samples.speech_wav(tmp_path / "voice.wav", 1.0)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", claim)
    data[4:8] = struct.pack("<I", min(0xFFFFFFFF, claim + 36 if claim else 0))
    path.write_bytes(data)
    sound = media.read_sound(path, "voice.wav", LIMITS)
    assert sound.duration_s == pytest.approx(1.0, abs=0.01)
    assert any("never written" in note for note in sound.notes) == bool(claim)


def test_a_second_wav_in_the_file_is_noted(tmp_path: Path) -> None:
    """Two wavs, written one after another, are one sound with a note on the rest."""
    path = samples.speech_wav(tmp_path / "voice.wav", 1.0)
    path.write_bytes(path.read_bytes() * 2)
    sound = media.read_sound(path, "voice.wav", LIMITS)
    assert sound.duration_s == pytest.approx(1.0)
    assert any("second wav" in note for note in sound.notes)


def test_what_follows_the_end_of_a_wav_is_noted(tmp_path: Path) -> None:
    """A wav to which a program appended without a word in the header; tags behind it are nothing."""
    path = samples.speech_wav(tmp_path / "voice.wav", 1.0)
    data = path.read_bytes()
    for more, is_noted in ((data[44:], True), (b"TAG" + bytes(125), False)):
        path.write_bytes(data + more)
        sound = media.read_sound(path, "voice.wav", LIMITS)
        assert sound.duration_s == pytest.approx(1.0)
        assert any("goes on behind" in note for note in sound.notes) == is_noted
