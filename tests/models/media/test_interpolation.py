"""Clips of few frames a second become clips of more."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.interpolation import COUNT, FPS, SCENES, WANTED, measure_db
from models.arrays import U8
from models.media.interpolation import INTERPOLATORS, write_clip
from models.media.video import VideoFrames


def draw(number: int) -> U8:
    return SCENES["moves by 6 pixels"](number, 96)


@pytest.mark.parametrize("scene", SCENES)
def test_the_flow_is_nearest_to_the_truth(scene: str) -> None:
    """By decibels, whatever moves; what moves fast is better by blocks than blended."""
    found = {method: measure_db(method, SCENES[scene]) for method in INTERPOLATORS}
    assert found["flow"] > max(found["blend"], found["minterpolate"]) + 2
    assert found["minterpolate"] > found["blend"] + 2 or scene not in ("moves by 6 pixels", "moves by 12 pixels")


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
