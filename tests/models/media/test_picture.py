"""Pictures of every format and kind of pixels."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import media
from models.arrays import U8
from models.types import Limits
from tests import media_samples as samples
from tests.media_samples import quarters
from tests.models.media.still_files import encode_still

LIMITS = Limits()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_every_format_of_picture(tmp_path: Path, suffix: str) -> None:
    """Stills of every format are read with their size and content."""
    path = samples.picture(tmp_path / f"face{suffix}")
    picture = media.read_picture(path, "face", LIMITS)
    assert (picture.kind, picture.width, picture.height, picture.fps) == ("image", 90, 60, None)
    assert np.abs(media.read_image(path, "face").astype(int) - samples.quarters()).mean() < 8


CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwPFxgWFBgSFBUU/8"
    "AAFAgACAAIBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAkI/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAA4EQwBNAFkASwAAPwBU0eCqIG//2Q=="
)
"""8 x 8 pixels of cyan 0, magenta 200, yellow 255, black 30, as a print shop would send them."""


def deep(picture: U8) -> np.ndarray:
    return picture.astype(np.uint16) * 257


def see_through(opacity: int) -> np.ndarray:
    return np.dstack([quarters(), np.full((60, 90), opacity, np.uint8)])


def grey(picture: U8) -> U8:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)


def kinds_of_pixels() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    half = (quarters().astype(int) * 128 + 255 * 127) // 255
    yield "deep.png", deep(quarters()), quarters()
    yield "deep.tif", deep(quarters()), quarters()
    yield "half.png", see_through(128), half
    yield "half.webp", see_through(128), half
    yield "clear.png", see_through(0), np.full((60, 90, 3), 255)
    yield "grey.png", grey(quarters()), np.dstack([grey(quarters())] * 3)
    yield "grey.jpg", grey(quarters()), np.dstack([grey(quarters())] * 3)
    yield "deepgrey.png", deep(grey(quarters())), np.dstack([grey(quarters())] * 3)
    yield "odd.gif", quarters(91, 61), quarters(91, 61)


@pytest.mark.parametrize(("name", "stored", "seen"), [pytest.param(*kind, id=kind[0]) for kind in kinds_of_pixels()])
def test_all_kinds_of_pixels(tmp_path: Path, name: str, stored: np.ndarray, seen: np.ndarray) -> None:
    """Sixteen bits, greys and palettes are read; transparency shows white."""
    path = tmp_path / name
    path.write_bytes(encode_still(path.suffix, stored))
    assert np.abs(media.read_image(path, name).astype(int) - seen).mean() < 12  # a GIF is dithered


def test_a_print_shops_jpeg(tmp_path: Path) -> None:
    """CMYK becomes its printed colour."""
    path = tmp_path / "cmyk.jpg"
    path.write_bytes(CMYK_JPEG)
    assert np.abs(media.read_image(path, "cmyk.jpg").mean(axis=(0, 1)) - (0, 49, 225)).max() < 3
