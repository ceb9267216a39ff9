"""Files that are opened by their content, and refused with a code, a reason and the user's name."""

from __future__ import annotations

import errno
import os
from fractions import Fraction
from pathlib import Path

import av
import pytest

from models import media
from models.media.opening import translate_read_errors
from models.types import EngineError, Limits
from tests import media_samples as samples
from tests.models.media.still_files import detailed_picture, encode_still

LIMITS = Limits()


def test_hostile_pictures_are_refused(tmp_path: Path) -> None:
    """Text, an empty file, a cut file and a sound are refused as avatars."""
    text = tmp_path / "text.jpg"
    text.write_text("no picture" * 99)
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    video = samples.video(tmp_path / "whole.mp4", 50)
    cut = samples.cut(video, tmp_path / "cut.mp4", 0.3)
    voice = samples.speech_wav(tmp_path / "voice.wav", 1.0)
    for path in (text, empty, cut, voice):
        with pytest.raises(EngineError) as refused:
            media.read_picture(path, "avatar.jpg", LIMITS)
        assert refused.value.code == "avatar_unreadable"
        assert "avatar.jpg" in refused.value.message


def test_playlists_and_sounds_are_no_videos(tmp_path: Path) -> None:
    """A sound is no avatar, and a playlist does not open other files."""
    playlist = tmp_path / "list.mp4"
    other = samples.video(tmp_path / "other.mp4", 3)
    for text in (f"ffconcat version 1.0\nfile {other.name}\n", f"#EXTM3U\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n"):
        playlist.write_text(text)
        with pytest.raises(EngineError, match="avatar_unreadable"):
            media.read_picture(playlist, "list.mp4", LIMITS)
    with pytest.raises(EngineError, match="avatar_unreadable"):
        media.read_picture(samples.speech_wav(tmp_path / "voice.wav", 0.5), "voice.wav", LIMITS)


def test_missing_files_are_named_without_their_folder(tmp_path: Path) -> None:
    """A file that can't be opened has the user's name in the message."""
    for read in (media.read_picture, media.read_sound):
        with pytest.raises(EngineError) as refused:
            read(tmp_path / "opaque", "hello.jpg", LIMITS)
        assert refused.value.message == "hello.jpg could not be opened: No such file or directory"
    for open_it in (media.read_waveform, lambda path: media.VideoFrames(path, Fraction(25))):
        with pytest.raises(EngineError, match="opaque could not be opened"):
            open_it(tmp_path / "opaque")


@pytest.mark.parametrize("name", ["face.jpg", "face.jpeg", "avatar", "face.png"])
def test_a_camera_jpeg_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    """A large JPEG is recognised by its content under any name."""
    path = tmp_path / name
    path.write_bytes(encode_still(".jpg", detailed_picture()))
    assert path.stat().st_size > 100_000
    assert (media.read_picture(path, name, LIMITS).width, media.read_image(path, name).shape) == (640, (480, 640, 3))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_cannot_be_read_is_no_damage_of_the_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg says EIO of damaged files, too: reading the file plainly tells which it is."""
    (path := tmp_path / "voice").write_bytes(b"not much")
    error = av.error.OSError(number, os.strerror(number), "file")
    with pytest.raises(EngineError) as refused, translate_read_errors("voice", "audio", path):
        raise error
    assert refused.value.code == "audio_unreadable"

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as raised, translate_read_errors("voice", "audio", path):
        raise error
    assert raised.value.filename == str(path)
