"""Frames of videos by number in any order, from all containers, complete or damaged."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from models import media
from models.types import Limits
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


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_number_gives_its_own_frame_in_any_order(tmp_path: Path, name: str) -> None:
    """At its own rate a video shows each picture once, forwards, backwards, to and fro, and at random."""
    path = samples.video(tmp_path / name, 60, **SEQUENCES[name])
    picture = media.read_picture(path, name, LIMITS)
    assert picture.kind == "video"
    assert picture.own_fps == SEQUENCES[name].get("fps", 25)
    random = [int(n) for n in np.random.default_rng(5).integers(0, 60, 40)]
    with media.VideoFrames(path, picture.own_fps) as frames:
        assert len(frames) == 60
        for order in (
            list(range(60)),
            list(range(59, -1, -1)),
            [*range(40), *range(38, 20, -1), *range(21, 60)],
            random,
        ):
            assert samples.numbers_shown(frames, order) == order


@pytest.mark.parametrize("order", ["ascending", "descending", "ping-pong", "random"])
def test_frames_by_number_in_any_order(tmp_path: Path, order: str) -> None:
    """With B-frames and long distances between key frames, each number gives its own frame."""
    path = samples.video(tmp_path / "v.mp4", 90, options={"g": "60", "bf": "3"})
    numbers = list(range(90))
    numbers = {
        "ascending": numbers,
        "descending": numbers[::-1],
        "ping-pong": numbers + numbers[-2::-1],
        "random": list(np.random.default_rng(1).permutation(90)),
    }[order]
    with media.VideoFrames(path, Fraction(25)) as frames:
        assert len(frames) == 90
        assert [samples.number_of(frames.read(int(n))) for n in numbers] == numbers


def test_frames_read_in_any_order_are_identical(tmp_path: Path) -> None:
    """Random access gives the same frames as reading from the start."""
    path = samples.video(tmp_path / "v.mp4", 60, options={"g": "25", "bf": "3"})
    with media.VideoFrames(path, Fraction(25)) as one, media.VideoFrames(path, Fraction(25)) as other:
        forwards = [one.read(n) for n in range(60)]
        for n in (59, 30, 31, 0, 45, 12):
            assert np.array_equal(other.read(n), forwards[n])


def test_the_order_of_reading_changes_no_pixel(tmp_path: Path) -> None:
    """Backwards and at random, across open groups of pictures, each frame is equal bit for bit."""
    path = samples.video(tmp_path / "v.mp4", 90, **SEQUENCES["open-gop.mp4"])
    with media.VideoFrames(path, Fraction(25)) as video:
        forwards = [video.read(n) for n in range(90)]
        for order in (range(89, -1, -1), np.random.default_rng(2).permutation(90)):
            assert all(np.array_equal(video.read(int(n)), forwards[n]) for n in order)


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg4", ".avi"), ("libvpx-vp9", ".webm"), ("mpeg4", ".mkv")])
def test_frames_of_other_containers(tmp_path: Path, codec: str, suffix: str) -> None:
    """AVI, WebM and Matroska can be read backwards too."""
    path = samples.video(tmp_path / f"v{suffix}", 40, codec=codec, pix_fmt="yuv420p")
    with media.VideoFrames(path, Fraction(25)) as frames:
        assert [samples.number_of(frames.read(n)) for n in (39, 20, 0, 21, 5)] == [39, 20, 0, 21, 5]


def test_frames_belong_to_the_caller(tmp_path: Path) -> None:
    """A change of a returned frame does not change the next read."""
    path = samples.video(tmp_path / "v.mp4", 3)
    with media.VideoFrames(path, Fraction(25)) as frames:
        frames.read(1)[:] = 0
        assert samples.number_of(frames.read(1)) == 1


def test_few_frames_are_kept(tmp_path: Path) -> None:
    """At most 32 frames are kept in memory for any video and order."""
    path = samples.video(tmp_path / "v.mp4", 120)
    with media.VideoFrames(path, Fraction(25)) as frames:
        for index in (*range(120), *range(119, -1, -1)):
            frames.read(index)
            assert len(frames._kept) <= 32


def scribble(path: Path, at: Callable[[bytes], int], size: int) -> None:
    data = bytearray(path.read_bytes())
    start = at(bytes(data))
    data[start : start + size] = b"\xff" * size
    path.write_bytes(data)


def test_a_damaged_picture_is_stood_in_for(tmp_path: Path) -> None:
    """One picture that does not decode moves no other."""
    path = samples.video(tmp_path / "v.mkv", 30, codec="mjpeg", full_range=True)
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.pts == 400)
        body = bytes(packet)
    scribble(path, lambda data: data.index(body), len(body))
    with media.VideoFrames(path, Fraction(25)) as frames:
        seen = samples.numbers_shown(frames, range(30))
    assert seen[10] in (9, 10, 11)
    assert seen[:10] + seen[11:] == [*range(10), *range(11, 30)]
