"""A folder of numbered pictures as an avatar."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import media
from models.handler import Handler
from models.media import numbered
from models.media.picture import read_picture
from models.types import EngineError, Limits, Request
from tests.share import voice


def write_pictures(folder: Path, *names: str, size: tuple[int, int] = (47, 62)) -> list[np.ndarray]:
    """Write pictures of noise; return them in the order of the names."""
    folder.mkdir(exist_ok=True)
    random, pictures = np.random.default_rng(0), []
    for name in names:
        pictures.append(random.integers(0, 256, (*size, 3), np.uint8))
        cv2.imwrite(str(folder / name), pictures[-1])
    return pictures


def test_pictures_become_a_video_to_the_bit(tmp_path: Path) -> None:
    """In the order of their numbers, not of their names, at the rate that was asked for; other files are left aside."""
    wanted = write_pictures(tmp_path / "face", "2.png", "10.png", "00000011.png")
    (tmp_path / "face" / "coords.pkl").touch()
    (tmp_path / "face" / ".DS_Store.png").touch()
    video = tmp_path / "face.mkv"
    assert numbered.write_lossless(tmp_path / "face", video, Fraction(30000, 1001)) == 3
    about = read_picture(video, "face.mkv", Limits())
    assert (about.kind, about.fps, about.width, about.height) == ("video", Fraction(30000, 1001), 62, 47)
    with media.VideoFrames(video, Fraction(30000, 1001)) as frames:
        assert len(frames) == 3
        assert all(np.array_equal(frames.read(number), picture) for number, picture in enumerate(wanted))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no pictures"),
        (["1.png", "face.png"], "face.png in face has no number"),
        (["1.png", "01.jpg"], "two pictures of one number"),
    ],
)
def test_what_is_no_row_of_numbers_is_refused(names: list[str], message: str, tmp_path: Path) -> None:
    """A name that doesn't count, a number twice, and nothing at all are named."""
    write_pictures(tmp_path / "face", *names)
    with pytest.raises(EngineError, match=message):
        numbered.write_lossless(tmp_path / "face", tmp_path / "face.mkv", Fraction(25))


def test_a_folder_is_inspected_as_a_video(tmp_path: Path) -> None:
    """At the rate of the job, to the bit; the hash changes with rate, order and content, and no copy is left over."""
    wanted = write_pictures(tmp_path / "face", "1.png", "2.png", "3.png", size=(64, 48))
    (tmp_path / "voice.wav").write_bytes(voice(0.2))
    status = (tmp_path / "face").stat()
    mark = [status.st_ino, status.st_size, status.st_mtime_ns]
    avatar, audio, work, out, cache, weights = (str(tmp_path / n) for n in ("face", "voice.wav", "w", "out", "c", "m"))
    request = Request(
        "preview",
        avatar,
        audio,
        work,
        out,
        cache,
        weights,
        marks={"avatar": mark},
        options={"face_box": [8, 8, 30, 40]},
    )
    found = Handler("cpu:0").inspect(request)
    assert (found.avatar_kind, found.fps, found.width, found.height) == ("video", "25", 48, 64)
    with media.VideoFrames(request.files.avatar, Fraction(25)) as frames:
        assert all(np.array_equal(frames.read(number), picture) for number, picture in enumerate(wanted))
    assert sorted(path.name for path in request.files.avatar.parent.iterdir()) == ["audio", "avatar"]
    again = Handler("cpu:0").inspect(replace(request, fps="30"))
    assert (again.fps, again.avatar_sha256 != found.avatar_sha256) == ("30", True)
    (tmp_path / "face" / "3.png").rename(tmp_path / "face" / "4.png")
    with pytest.raises(EngineError) as changed:
        Handler("cpu:0").inspect(request)
    assert changed.value.code == "media_changed"
    assert Handler("cpu:0").inspect(replace(request, marks={})).avatar_sha256 != found.avatar_sha256


def test_a_picture_is_no_link_and_all_have_a_limit(tmp_path: Path) -> None:
    """A link among the pictures leads nowhere, and the limit of a file holds for the folder."""
    write_pictures(tmp_path / "face", "1.png", "2.png")
    join = partial(
        numbered.join_pictures, tmp_path / "face", tmp_path / "work" / "avatar", mark=(), tick=lambda _: None
    )
    size = (tmp_path / "face" / "1.png").stat().st_size
    with pytest.raises(EngineError) as large:
        join(limits=Limits(media_bytes=size + 10), fps=Fraction(25))
    assert large.value.code == "media_too_large"
    with pytest.raises(EngineError, match="a video of more than 0 MiB"):
        numbered.write_lossless(tmp_path / "face", tmp_path / "face.mkv", Fraction(25), Limits(media_bytes=size + 10))
    with pytest.raises(EngineError, match="avatar_too_large"):
        join(limits=Limits(pixels=1), fps=Fraction(25))
    (tmp_path / "secret.png").write_bytes((tmp_path / "face" / "1.png").read_bytes())
    (tmp_path / "face" / "3.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(EngineError) as link:
        join(limits=Limits(), fps=Fraction(25))
    assert link.value.code == "media_changed"
    assert list((tmp_path / "work").iterdir()) == []


def test_pictures_of_several_sizes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says which one, and what to do."""
    write_pictures(tmp_path / "face", "1.png")
    write_pictures(tmp_path / "face", "2.png", size=(64, 48))
    monkeypatch.setattr(sys, "argv", ["numbered", str(tmp_path / "face"), str(tmp_path / "face.mkv"), "25"])
    assert numbered.main() == 2
    assert "2.png has 48 x 64 pixels, and the first picture 62 x 47; save all in one size" in capsys.readouterr().err
