"""What is seen through transparent pixels, and pictures that keep their transparency."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from models import media
from models.media.pictures.background import Background, keep_opacity, measure_opacity, parse_colour
from models.types import Request
from tests.models.media.pictures.test_gamut import GAMMAS, make_profile, stored_skin
from tests.models.media.transparent import CODECS, SKIN, STILLS, draw_rgba, read_thirds, write_transparent

GREEN = "#00b140"
RGB = (0, 177, 64)
FPS = Fraction(25)


@pytest.mark.parametrize("as_yuv", [False, True])
@pytest.mark.parametrize("name", [*STILLS, *CODECS])
def test_a_colour_is_seen_through_every_kind(tmp_path: Path, name: str, as_yuv: bool) -> None:
    """Stills, animations and videos with transparency are blended over the colour, in BGR and in planes."""
    path = write_transparent(tmp_path, name)
    with media.VideoFrames(path, FPS, background=parse_colour(GREEN), as_yuv=as_yuv) as video:
        picture = video.read(len(video) - 1)
        shown = read_thirds(media.yuv_to_bgr(picture, video.colour) if as_yuv else picture)
    wanted = (RGB, SKIN, tuple((a + b) / 2 for a, b in zip(RGB, SKIN, strict=True)))
    tolerance = 2 if name in STILLS and not as_yuv else 4
    for told, right in zip(shown, wanted, strict=True):
        assert np.abs(np.subtract(told, right)).max() <= tolerance


def test_the_colour_is_that_of_the_result_whatever_the_profile(tmp_path: Path) -> None:
    """A picture with a colour profile is converted first: the background is not."""
    rgba = draw_rgba()
    rgba[..., :3] = stored_skin("adobe")
    Image.fromarray(rgba).save(tmp_path / "face.png", icc_profile=make_profile(*GAMMAS["adobe"]))
    shown = read_thirds(media.read_image(tmp_path / "face.png", background=parse_colour(GREEN)))
    assert np.abs(np.subtract(shown[0], RGB)).max() <= 1
    assert np.abs(np.subtract(shown[1], SKIN)).max() <= 3


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96), (31, 17), (200, 20)])
def test_a_picture_fills_the_frame_in_its_own_shape(width: int, height: int) -> None:
    """It is scaled until no edge is left, and cut about its middle."""
    wall = np.zeros((60, 60, 3), np.uint8)
    cv2.circle(wall, (30, 30), 6, (255, 255, 255), -1)
    shown = Background(picture=wall).blend(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8))
    rows, columns = np.nonzero(shown[..., 0] > 128)
    scale = max(width, height) / 60
    assert np.ptp(columns) == pytest.approx(12 * scale, abs=1 + scale)
    assert min(np.ptp(rows), height) == pytest.approx(min(12 * scale, height), abs=2 + scale)
    assert columns.mean() == pytest.approx(width / 2, abs=1 + scale)


def test_white_is_what_was_seen_before(tmp_path: Path) -> None:
    """Without a background nothing changes: transparency is over white."""
    path = write_transparent(tmp_path, "face.png")
    assert read_thirds(media.read_image(path))[0] == [255, 255, 255]


def test_opacity_is_measured_exactly_and_kept() -> None:
    """A picture blended over white and over black gives back its opacity, and its colours to one level as seen."""
    random = np.random.default_rng(5)
    bgr, opacity = random.integers(0, 256, (64, 64, 3), np.uint8), random.integers(0, 256, (64, 64), np.uint8)
    white, black = (Background((level,) * 3).blend(bgr, opacity) for level in (255, 0))
    assert np.array_equal(measure_opacity(white, black), opacity)
    kept = keep_opacity(white, opacity)
    assert np.array_equal(kept[..., 3], opacity)
    assert np.array_equal(kept[opacity == 255][:, :3], bgr[opacity == 255])
    back = Background((64, 177, 0))
    seen, right = back.blend(kept[..., :3], opacity), back.blend(bgr, opacity)
    assert np.abs(seen.astype(int) - right).max() <= 1


def test_a_request_says_what_is_behind(tmp_path: Path) -> None:
    """A colour, a picture among its media, or white."""
    request = Request("preview", "face.png", "voice.wav", str(tmp_path), "out", "cache", "models")
    (tmp_path / "input").mkdir()
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 30)).save(data, "PNG")
    (tmp_path / "input" / "background").write_bytes(data.getvalue())
    clear = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)

    def read_colour(one: Request) -> list[int]:
        return [int(level) for level in media.read_background(one).blend(*clear)[0, 0, ::-1]]

    assert read_colour(request) == [255, 255, 255]
    assert read_colour(replace(request, background=GREEN)) == list(RGB)
    assert read_colour(replace(request, media={"background": "/in/wall.png"})) == [10, 20, 30]
