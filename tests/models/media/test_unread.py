"""Files that are not what was wanted: the message names what they are, on both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from models import media
from models.types import EngineError, Limits
from tests import media_samples as samples

UNREAD = [
    ("voice.amr", b"#!SILK_V3" + bytes(200), "SILK"),
    ("voice.amr", b"\x02#!SILK_V3" + bytes(200), "SILK"),
    ("voice.dts", b"\x7f\xfe\x80\x01" + bytes(200), "DTS"),
    ("voice.mxf", b"\x06\x0e\x2b\x34" + bytes(200), "MXF"),
    ("voice.mid", b"MThd" + bytes(200), "MIDI"),
    ("voice.wav", b"<!DOCTYPE html><title>404</title>", "web page"),
]


HINTS = {"avatar": "save it as jpg, png or mp4", "audio": "convert it to wav, mp3 or m4a, which are read"}


def read_refusal(path: Path, kind: str = "audio") -> EngineError:
    """Return the refusal of a file as the face or as the voice."""
    read: Callable[..., object] = media.read_picture if kind == "avatar" else media.read_sound
    with pytest.raises(EngineError) as refused:
        read(path, path.name, Limits())
    assert refused.value.code == f"{kind}_unreadable"
    assert path.name in refused.value.message
    return refused.value


@pytest.mark.parametrize(("name", "data", "word"), UNREAD)
def test_a_format_that_is_not_read_is_named(tmp_path: Path, name: str, data: bytes, word: str) -> None:
    """It is not called damaged, and the hint says what to convert it to."""
    path = tmp_path / name
    path.write_bytes(data)
    refused = read_refusal(path)
    assert word in refused.message
    assert "damaged" not in refused.message
    assert refused.hint


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_a_face_where_a_voice_was_wanted_is_called_swapped(tmp_path: Path, suffix: str) -> None:
    """Pictures and videos without sound are named as what they are."""
    assert "swapped" in read_refusal(samples.picture(tmp_path / f"face{suffix}")).message
    assert "swapped" in read_refusal(samples.video(tmp_path / "face.mp4", 5)).message


@pytest.mark.parametrize("data", [b"no sound at all " * 50, bytes(4000), bytes(range(256)) * 30])
def test_messages_hold_no_words_of_ffmpeg(tmp_path: Path, data: bytes) -> None:
    """Files that nothing can be made of are refused in words for users."""
    path = tmp_path / "voice.wav"
    path.write_bytes(data)
    message = read_refusal(path).message
    assert not any(word in message for word in ("Invalid", "argument", "processing input"))


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".webm", ".ac3", ".aiff"])
def test_a_voice_where_a_face_was_wanted_is_called_swapped(tmp_path: Path, suffix: str) -> None:
    """Every kind of sound is named as no picture, and not called damaged."""
    path = samples.sound(tmp_path / f"voice{suffix}", samples.speech(1.0, 48_000), 48_000)
    assert "swapped" in read_refusal(path, "avatar").message


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04", "ZIP"),
        (b"Rar!\x1a\x07", "RAR"),
        (b"<!doctype html>", "HTML"),
        (b"\n<!DOCTYPE html>", "HTML"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"<?xml version='1.0'?>\n<svg>", "SVG"),
        (b"\0\0\0\x18ftypcrx ", "CR3"),
        (b"#!SILK_V3", "SILK"),
        (b"\x7f\xfe\x80\x01", "DTS"),
        (b"8BPS", "Photoshop"),
        (b"#EXTM3U", "playlist"),
        (b"\x06\x0e\x2b\x34", "MXF"),
        (b"\x1aE\xdf\xa3", "Matroska"),
        (b"\0\0\0\x18ftypisom", "MP4"),
    ],
)
def test_both_sides_name_the_same_formats(tmp_path: Path, start: bytes, word: str) -> None:
    """Whichever key names the file, whatever its ending, the message says what it is."""
    path = tmp_path / "talk.mp4"
    path.write_bytes(start + bytes(600))
    is_film = word in ("Matroska", "MP4", "MXF")
    for kind, hint in HINTS.items():
        refused = read_refusal(path, kind)
        assert word in refused.message
        assert "Invalid" not in refused.message
        assert is_film or refused.hint == hint
