"""A folder of numbered pictures as an avatar."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import media
from models.media import numbered
from models.media.picture import read_picture
from models.types import EngineError, Limits


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


def test_pictures_of_several_sizes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says which one, and what to do."""
    write_pictures(tmp_path / "face", "1.png")
    write_pictures(tmp_path / "face", "2.png", size=(64, 48))
    monkeypatch.setattr(sys, "argv", ["numbered", str(tmp_path / "face"), str(tmp_path / "face.mkv"), "25"])
    assert numbered.main() == 2
    assert "2.png has 48 x 64 pixels, and the first picture 62 x 47; save all in one size" in capsys.readouterr().err
