"""Clips of few frames a second become clips of more."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.arrays import U8
from models.media.interpolation import INTERPOLATORS, write_clip
from models.media.video import VideoFrames

COUNT, FPS, WANTED = 4, Fraction(4), Fraction(25)


def draw(number: float) -> U8:
    """Return a disc with a pattern that has moved by 6 pixels times `number`."""
    rows, columns = np.mgrid[:96, :96].astype(np.float64)
    across = columns - 30 - 6 * number
    disc = 255 / (1 + np.exp((np.hypot(across, rows - 48) - 20) / 2))
    shade = disc * (0.7 + 0.3 * np.sin(across / 4) * np.sin(rows / 4))
    return np.repeat(shade[..., None], 3, 2).astype(np.uint8)


def measure_db(method: str) -> float:
    made = list(INTERPOLATORS[method](draw, COUNT, FPS, WANTED))
    assert len(made) == int((COUNT - 1) * WANTED / FPS) + 1
    errors = [np.mean((np.float64(one) - draw(n * float(FPS / WANTED))) ** 2) for n, one in enumerate(made)]
    return float(10 * np.log10(255**2 / np.mean(errors)))


def test_the_flow_is_nearer_to_the_truth_than_blending() -> None:
    """Each way is better than the one before it, by decibels."""
    blend, blocks, flow = (measure_db(method) for method in ("blend", "minterpolate", "flow"))
    assert blend + 2 < blocks
    assert blocks + 8 < flow


@pytest.mark.parametrize(("method", "rate", "frames"), [("flow", 25, 19), ("none", 4, 4)])
def test_a_clip_is_written_without_loss(tmp_path: Path, method: str, rate: int, frames: int) -> None:
    """The first and the last picture are those of the folder, to the bit, and the rate is said."""
    (tmp_path / "frames").mkdir()
    for number in range(COUNT):
        cv2.imwrite(str(tmp_path / "frames" / f"{number:06d}.png"), draw(number))
    assert write_clip(tmp_path / "frames", tmp_path / "clip.mkv", FPS, method, WANTED) == rate
    with VideoFrames(tmp_path / "clip.mkv", Fraction(rate)) as video:
        assert len(video) == frames
        assert np.array_equal(video.read(0), draw(0))


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    """The clip is cached by its content, and no time of its making is in it."""
    (tmp_path / "frames").mkdir()
    for number in range(COUNT):
        cv2.imwrite(str(tmp_path / "frames" / f"{number:06d}.png"), draw(number))
    for name in ("one.mkv", "two.mkv"):
        write_clip(tmp_path / "frames", tmp_path / name, FPS, "flow", WANTED)
    assert (tmp_path / "one.mkv").read_bytes() == (tmp_path / "two.mkv").read_bytes()
