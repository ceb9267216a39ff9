"""The frames of an avatar in the size of the result."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Colorspace

from models.handler import Handler
from models.media import split_planes
from models.media.output.encode import write_part
from models.musetalk.avatar.frames import BgrFrames, open_yuv
from models.types import Colour, Inspection, Output, Request
from tests.models.musetalk import tiny
from tests.models.musetalk.jobs import make_request


def inspect(tmp_path: Path, border: int, height: int | None) -> tuple[Request, Inspection]:
    models_dir = tiny.lay_out(tmp_path / "models")
    picture = cv2.copyMakeBorder(tiny.picture(), 0, border, 0, border, cv2.BORDER_REPLICATE)
    cv2.imwrite(str(tmp_path / "face.png"), picture)
    request = replace(make_request(tmp_path, models_dir, tmp_path / "face.png"), output=Output(height=height))
    return request, Handler("cpu:0").inspect(request)


@pytest.mark.parametrize(
    ("border", "height", "size"), [(0, None, (160, 128)), (1, None, (160, 128)), (0, 96, (120, 96))]
)
def test_both_forms_have_the_size_of_the_result(
    tmp_path: Path, border: int, height: int | None, size: tuple[int, int]
) -> None:
    """BGR and YUV show the same picture: an odd row and column cut off, a smaller height scaled to."""
    request, inspection = inspect(tmp_path, border, height)
    with BgrFrames(request, inspection) as bgr, open_yuv(request, inspection) as yuv:
        assert len(bgr) == len(yuv) == 1
        frame, luma = bgr.read(0), split_planes(yuv.read(0))[0]
    assert frame.shape == (size[1], size[0], 3)
    assert luma.shape == (size[1], size[0])
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(int)
    assert np.abs(16 + grey * 219 / 255 - luma).mean() < 2
    if height is None:
        assert np.array_equal(frame, tiny.picture())


def test_the_reference_reads_a_large_untagged_video_as_swscale_does(tmp_path: Path) -> None:
    """BT.601 where no tag tells, at 720 lines too; elsewhere those are BT.709, and a tag is believed by both."""
    told = {}
    for name, matrix in (("untagged", 2), ("tagged", 1)):
        path, colours = tmp_path / f"{name}.mp4", Colour(primaries=2, transfer=2, matrix=matrix)
        write_bars(path, colours)
        request = replace(make_request(tmp_path, tmp_path, path, job=name), fps="25")
        request.files.avatar.parent.mkdir()
        request.files.avatar.write_bytes(path.read_bytes())
        inspection = Inspection(2, "25", 1280, 720, 0.08, {})
        for reference in (False, True):
            with BgrFrames(request, inspection, reference=reference) as frames:
                told[name, reference] = frames.read(0)
    with av.open(str(tmp_path / "untagged.mp4")) as video:
        swscale = next(video.decode(video=0)).reformat(format="bgr24", src_colorspace=Colorspace.ITU601).to_ndarray()
    assert np.abs(told["untagged", True].astype(int) - swscale).max() <= 1
    assert np.abs(told["untagged", False].astype(int) - told["untagged", True]).max() > 10
    assert np.array_equal(told["tagged", True], told["tagged", False])


def write_bars(path: Path, colour: Colour) -> None:
    """Write a video of 720 lines with strong colours, tagged or not."""
    planes = np.full((1080, 1280), 128, np.uint8)
    planes[:720] = 120
    planes[720:900], planes[900:] = 80, 190
    size: dict[str, Any] = {"width": 1280, "height": 720, "fps": Fraction(25), "encoder": "libx264", "crf": 4}
    write_part(path, iter([planes] * 2), count=2, progress=lambda _: None, colour=colour, **size)
