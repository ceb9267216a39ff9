"""The frames of an avatar in the size of the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.handler import Handler
from models.media import split_planes
from models.musetalk.avatar.frames import BgrFrames, open_yuv
from models.types import Inspection, Output, Request
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
