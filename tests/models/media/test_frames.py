"""Frames of videos by number, from containers and codecs that do it their own way, whole or damaged."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from models import media
from models.types import EngineError, Limits
from tests import media_samples as samples

LIMITS = Limits()
SEQUENCES: dict[str, dict[str, Any]] = {
    "webm30.webm": {"codec": "libvpx-vp9", "fps": 30},
    "mkv30000.mkv": {"fps": Fraction(30000, 1001)},
    "mkv60.mkv": {"fps": 60},
    "avi-b-frames.avi": {"options": {"bf": "3"}},
    "avi-mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "open-gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=12:scenecut=0:bframes=3"}},
    "one-key.mp4": {"options": {"g": "999", "bf": "3"}},
    "all-keys.mov": {"codec": "mjpeg", "full_range": True},
    "late.ts": {},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12"}},
    "moving.gif": {"codec": "gif", "fps": 10},
    "flash.flv": {"codec": "flv1"},
    "odd.mkv": {"width": 97, "height": 65, "pix_fmt": "yuv444p"},
}


def shown(frames: media.VideoFrames, indices: range | list[int]) -> list[int]:
    return [samples.number_of(frames.read(index)) for index in indices]


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_number_gives_its_own_frame_in_any_order(tmp_path: Path, name: str) -> None:
    """At its own rate a video shows each of its pictures once: forwards, backwards, to and fro, and at random."""
    path = samples.video(tmp_path / name, 60, **SEQUENCES[name])
    picture = media.read_picture(path, name, LIMITS)
    assert (picture.kind, picture.frames) == ("video", 60)
    assert picture.fps == SEQUENCES[name].get("fps", 25)
    random = [int(n) for n in np.random.default_rng(5).integers(0, 60, 40)]
    with media.VideoFrames(path, picture.fps) as frames:
        assert len(frames) == 60
        for order in (
            list(range(60)),
            list(range(59, -1, -1)),
            [*range(40), *range(38, 20, -1), *range(21, 60)],
            random,
        ):
            assert shown(frames, order) == order


def test_the_order_of_reading_changes_no_pixel(tmp_path: Path) -> None:
    """Backwards and at random, across open groups of pictures, each frame is bit for bit what reading on gives."""
    path = samples.video(tmp_path / "v.mp4", 90, **SEQUENCES["open-gop.mp4"])
    with media.VideoFrames(path, Fraction(25)) as video:
        forwards = [video.read(n) for n in range(90)]
        for order in (range(89, -1, -1), np.random.default_rng(2).permutation(90)):
            assert all(np.array_equal(video.read(int(n)), forwards[n]) for n in order)


def test_frames_belong_to_the_caller(tmp_path: Path) -> None:
    """Painting on a frame changes nothing for the next who reads it."""
    path = samples.video(tmp_path / "v.mp4", 3)
    with media.VideoFrames(path, Fraction(25)) as frames:
        frames.read(1)[:] = 0
        assert samples.number_of(frames.read(1)) == 1


def test_few_frames_are_kept(tmp_path: Path) -> None:
    """However long the video and whatever the order, at most 32 frames lie in memory."""
    path = samples.video(tmp_path / "v.mp4", 120)
    with media.VideoFrames(path, Fraction(25)) as frames:
        for index in (*range(120), *range(119, -1, -1)):
            frames.read(index)
            assert len(frames._kept) <= 32


def phone(count: int) -> list[Fraction]:
    """Thirty frames a second as a phone stamps them: a few milliseconds early or late."""
    jitter = np.random.default_rng(8).integers(-4, 5, count)
    jitter[0] = 0
    return [Fraction(n, 30) + Fraction(int(late), 1000) for n, late in enumerate(jitter)]


def test_a_jittering_clock_skips_and_repeats_nothing(tmp_path: Path) -> None:
    """A phone's variable rate near 30 is 30, and each picture is shown once."""
    path = samples.video(tmp_path / "phone.mp4", 60, times=phone(60))
    picture = media.read_picture(path, "phone.mp4", LIMITS)
    assert (picture.fps, picture.frames) == (Fraction(30), 60)
    with media.VideoFrames(path, Fraction(30)) as frames:
        assert shown(frames, range(60)) == list(range(60))


def test_a_variable_rate_keeps_its_speed(tmp_path: Path) -> None:
    """A picture that stands for a second stands for a second, at whatever rate the frames are taken."""
    times = [Fraction(n, 20) for n in range(20)] + [Fraction(2) + Fraction(n, 20) for n in range(20)]
    path = samples.video(tmp_path / "pause.mp4", 40, times=times)
    picture = media.read_picture(path, "pause.mp4", LIMITS)
    assert picture.duration_s == pytest.approx(3.0, abs=0.06)
    for fps in (Fraction(10), Fraction(25), Fraction(60)):
        with media.VideoFrames(path, fps) as frames:
            seen = shown(frames, range(len(frames)))
            assert abs(len(seen) - 3 * fps) <= fps // 10
            assert seen[round(fps * Fraction(3, 2))] == 19
            assert all(later >= earlier for earlier, later in pairwise(seen))


def test_frames_at_twice_the_rate_come_twice(tmp_path: Path) -> None:
    """A higher rate repeats pictures, a lower one leaves some out."""
    path = samples.video(tmp_path / "v.mp4", 20)
    with media.VideoFrames(path, Fraction(50)) as frames:
        assert shown(frames, range(40)) == [n // 2 for n in range(40)]
    with media.VideoFrames(path, Fraction(25, 2)) as frames:
        assert shown(frames, range(10)) == list(range(0, 20, 2))
        with pytest.raises(IndexError, match="there is no frame 10"):
            frames.read(10)


def test_scaling_turns_first(tmp_path: Path) -> None:
    """The size asked for is that of the upright picture."""
    path = samples.video(tmp_path / "v.mp4", 3, 90, 60, rotation=90, frames=iter([samples.quarters()] * 3))
    with media.VideoFrames(path, Fraction(25), 40, 60) as frames:
        seen = frames.read(2)
    wanted = cv2.resize(np.ascontiguousarray(np.rot90(samples.quarters(), -1)), (40, 60), interpolation=cv2.INTER_AREA)
    assert seen.shape == (60, 40, 3)
    assert np.abs(seen.astype(int) - wanted).mean() < 12


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("height", [240, 720])
def test_colours_follow_the_tags(tmp_path: Path, matrix: int, full_range: bool, height: int) -> None:
    """BT.601 and BT.709, limited and full range give back what went in, whatever the size."""
    picture = samples.quarters(height * 16 // 9 // 2 * 2, height)
    path = samples.video(
        tmp_path / "v.mp4",
        2,
        picture.shape[1],
        height,
        matrix=matrix,
        full_range=full_range,
        options={"crf": "4"},
        frames=iter([picture] * 2),
    )
    with media.VideoFrames(path, Fraction(25)) as frames:
        difference = np.abs(frames.read(0).astype(int) - picture)
    assert np.median(difference) <= 2
    assert difference.mean() < 3


def test_animations_are_videos(tmp_path: Path) -> None:
    """An animated WebP moves and can be read backwards; one picture, even of an animation, is an image."""
    pictures = [np.dstack([samples.numbered(n), np.full((64, 96), 255, np.uint8)]) for n in range(40)]
    for count, kind in ((40, "video"), (1, "image")):
        animation = cv2.Animation()
        animation.frames, animation.durations = pictures[:count], [40] * count
        path = tmp_path / f"{count}.webp"
        assert cv2.imwriteanimation(str(path), animation, [cv2.IMWRITE_WEBP_QUALITY, 95])
        picture = media.read_picture(path, path.name, LIMITS)
        assert (picture.kind, picture.width, picture.height, picture.frames) == (kind, 96, 64, count)
        with media.VideoFrames(path, Fraction(25)) as frames:
            order = [*range(count), *range(count - 1, -1, -1)]
            assert shown(frames, order) == order
    with pytest.raises(EngineError, match="video_too_long"):
        media.read_picture(tmp_path / "40.webp", "40.webp", Limits(video_s=1.0))
    with pytest.raises(EngineError, match="avatar_too_large"):
        media.read_picture(tmp_path / "40.webp", "40.webp", Limits(pixels=96 * 64))


@pytest.mark.parametrize(("suffix", "faststart"), [(".mp4", True), (".mp4", False), (".webm", False), (".mkv", False)])
@pytest.mark.parametrize("share", [0.3, 0.85])
def test_a_video_that_breaks_off_is_refused(tmp_path: Path, suffix: str, faststart: bool, share: float) -> None:
    """Even when its beginning plays: the rest is missing, and the message says so or that it can't be read."""
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    whole = samples.video(tmp_path / f"whole{suffix}", 100, codec=codec, faststart=faststart)
    cut = samples.cut(whole, tmp_path / "avatar", share)
    with pytest.raises(EngineError) as refused:
        media.read_picture(cut, "face.mp4", LIMITS)
    assert refused.value.code == "avatar_unreadable"
    assert refused.value.message.startswith("face.mp4 ")
    assert str(tmp_path) not in refused.value.message


def scribble(path: Path, at: Callable[[bytes], int], size: int) -> None:
    data = bytearray(path.read_bytes())
    start = at(bytes(data))
    data[start : start + size] = b"\xff" * size
    path.write_bytes(data)


def test_a_damaged_picture_is_stood_in_for(tmp_path: Path) -> None:
    """One picture that does not decode costs no other its place."""
    path = samples.video(tmp_path / "v.mkv", 30, codec="mjpeg", full_range=True)
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.pts == 400)
        body = bytes(packet)
    scribble(path, lambda data: data.index(body), len(body))
    with media.VideoFrames(path, Fraction(25)) as frames:
        seen = shown(frames, range(30))
    assert seen[10] in (9, 10, 11)
    assert seen[:10] + seen[11:] == [*range(10), *range(11, 30)]


def test_playlists_and_sounds_are_no_videos(tmp_path: Path) -> None:
    """A sound is no avatar, and a playlist is not followed to other files, local or not."""
    playlist = tmp_path / "list.mp4"
    other = samples.video(tmp_path / "other.mp4", 3)
    for text in (f"ffconcat version 1.0\nfile {other.name}\n", f"#EXTM3U\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n"):
        playlist.write_text(text)
        with pytest.raises(EngineError, match="avatar_unreadable"):
            media.read_picture(playlist, "list.mp4", LIMITS)
    with pytest.raises(EngineError, match="avatar_unreadable"):
        media.read_picture(samples.speech_wav(tmp_path / "voice.wav", 0.5), "voice.wav", LIMITS)


def test_missing_files_are_named_without_their_folder(tmp_path: Path) -> None:
    """What can't be opened is named as the user named it."""
    for read in (media.read_picture, media.read_sound):
        with pytest.raises(EngineError) as refused:
            read(tmp_path / "opaque", "hello.jpg", LIMITS)
        assert refused.value.message == "hello.jpg could not be opened: No such file or directory"
    for open_it in (media.read_waveform, lambda path: media.VideoFrames(path, Fraction(25))):
        with pytest.raises(EngineError, match="opaque could not be opened"):
            open_it(tmp_path / "opaque")
