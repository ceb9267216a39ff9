"""Colours of a result: matrix, range and tags are those of its source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models import media
from models.media.pictures.colour import ToYuv, bgr_to_yuv_matrix
from models.types import Colour
from tests import media_samples as samples
from tests.models.media.bars import (
    BARS,
    FPS,
    cut_flat_areas,
    decode,
    film,
    frame_of_bars,
    pass_on,
    read_planes,
    read_tags,
)


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("height", [240, 720])
def test_colours_follow_the_tags(tmp_path: Path, matrix: int, full_range: bool, height: int) -> None:
    """BT.601 and BT.709 in limited and full range return the original colours at any size."""
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


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_result_has_the_colours_and_tags_of_its_source(tmp_path: Path, matrix: int, full_range: bool) -> None:
    """In BT.709 and BT.601, limited and full, every sample returns within two levels, with the same tags."""
    source = film(tmp_path / "bars.mp4", matrix=matrix, full_range=full_range)
    result, colour = pass_on(source, tmp_path)
    assert colour.matrix == matrix
    assert colour.range == 1 + full_range
    assert read_tags(result) == read_tags(source)
    for before, after in zip(decode(source), decode(result), strict=True):
        for ours, own in zip(read_planes(after), read_planes(before), strict=True):
            assert np.abs(cut_flat_areas(ours) - cut_flat_areas(own)).max() <= 2
            assert abs((ours - own).mean()) < 0.3


def test_all_tags_are_kept_and_none_is_made_up(tmp_path: Path) -> None:
    """Tags of an NTSC video are kept, and a video without tags gets none."""
    told = Colour(primaries=6, transfer=6, matrix=6, range=1)
    for colour in (told, Colour(2, 2, 2, 0)):
        source = tmp_path / f"{colour.matrix}.mp4"
        frames = [frame_of_bars(colour)] * 4
        media.write_part(
            source,
            iter(frames),
            count=4,
            fps=FPS,
            width=192,
            height=96,
            encoder="libx264",
            crf=10,
            progress=lambda _: None,
            colour=colour,
        )
        result, kept = pass_on(source, tmp_path)
        assert kept == colour
        assert (
            read_tags(result) == read_tags(source) == (colour.primaries, colour.transfer, colour.matrix, colour.range)
        )


@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("reach", [1, 2])
def test_our_matrices_are_swscales(matrix: int, reach: int) -> None:
    """The factors for faces give what FFmpeg gives for the rest of the picture."""
    colour = Colour(matrix=matrix, range=reach)
    factors = bgr_to_yuv_matrix(colour, 192, 96)
    for bgr in BARS:
        flat = np.full((16, 16, 3), bgr, np.uint8)
        theirs = [plane[4, 4] for plane in read_planes(ToYuv(colour)(flat))]
        assert np.abs(factors[:, :3] @ np.array(bgr, float) + factors[:, 3] - theirs).max() <= 1
