"""Headers of still pictures: orientation, thumbnails, and false sizes."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models import media
from models.arrays import U8
from models.types import EngineError, Limits
from tests import media_samples as samples
from tests.media_samples import quarters
from tests.models.media.still_files import encode_still, jpeg_segment

ROOT = Path(__file__).parents[4]
LIMITS = Limits()
UPRIGHT: dict[int, Callable[[U8], U8]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientations(tmp_path: Path, orientation: int) -> None:
    """All eight orientations of a phone's JPEG are turned upright, mirrored ones too."""
    path = samples.picture(tmp_path / "face.jpg", exif_orientation=orientation)
    seen = UPRIGHT[orientation](samples.quarters())
    picture = media.read_picture(path, "face", LIMITS)
    assert (picture.height, picture.width) == seen.shape[:2]
    assert np.abs(media.read_image(path, "face").astype(int) - seen).mean() < 8


def exif_with_thumbnail(thumbnail: bytes) -> bytes:
    """Return a camera's EXIF segment: orientation 6 in the first directory, a small JPEG in the second."""
    first = struct.pack("<H", 1) + struct.pack("<HHII", 0x112, 3, 1, 6) + struct.pack("<I", 26)
    second = struct.pack("<H", 2) + struct.pack("<HHIIHHII", 0x201, 4, 1, 56, 0x202, 4, 1, len(thumbnail)) + bytes(4)
    return jpeg_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + first + second + thumbnail)


def test_a_thumbnail_is_not_the_picture(tmp_path: Path) -> None:
    """A small JPEG inside the EXIF data is ignored, and the orientation beside it is used."""
    whole, small = encode_still(".jpg", quarters(400, 300)), encode_still(".jpg", np.zeros((40, 40, 3), np.uint8))
    path = tmp_path / "camera.jpg"
    path.write_bytes(whole[:2] + exif_with_thumbnail(small) + whole[2:])
    picture = media.read_picture(path, "camera.jpg", LIMITS)
    assert (picture.kind, picture.width, picture.height) == ("image", 300, 400)
    assert np.abs(media.read_image(path, "camera.jpg").astype(int) - np.rot90(quarters(400, 300), -1)).mean() < 8


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    """A small file that declares enormous dimensions is refused before any allocation."""
    from tests.e2e.test_daemon import png_header

    for side in (60_000, 15_000):
        path = tmp_path / "bomb.png"
        path.write_bytes(png_header(side, side))
        with pytest.raises(EngineError) as refused:
            media.read_picture(path, "bomb.png", LIMITS)
        assert refused.value.code == "avatar_too_large"
        assert str(side) in refused.value.message


def bombs() -> dict[str, bytes]:
    """Return small files that declare 16,000 x 16,000 pixels."""
    side = 16_000
    jpeg = encode_still(".jpg", quarters())
    frame = jpeg.index(b"\xff\xc0")
    return {
        "bomb.gif": b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + bytes(6) + b"\x2c" + bytes(9) + b"\0;",
        "bomb.bmp": b"BM"
        + struct.pack("<IHHI", 1000, 0, 0, 54)
        + struct.pack("<IiiHH", 40, side, side, 1, 24)
        + bytes(999),
        "bomb.jpg": jpeg[: frame + 5] + struct.pack(">HH", side, side) + jpeg[frame + 9 :],
        "bomb.tif": b"II*\0\x08\0\0\0" + struct.pack("<HHHIIHHII", 2, 256, 4, 1, side, 257, 4, 1, side) + bytes(99),
        "bomb.webp": b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (side - 1).to_bytes(3, "little") * 2 + bytes(99),
    }


MEASURE = """
import pathlib, resource, sys
from models import media
from models.types import EngineError, Limits
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        media.read_picture(path, path.name, Limits())
    except EngineError as error:
        print(path.name, error.code)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_are_refused_without_taking_memory(tmp_path: Path) -> None:
    """The size is read from the header of each format before a decoder allocates memory."""
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *answers, grown_kib = run.stdout.splitlines()
    assert answers == [f"{name} avatar_too_large" for name in sorted(bombs())]
    assert int(grown_kib) < 32 * 1024


def test_what_looks_like_a_header_and_isnt(tmp_path: Path) -> None:
    """Files that begin like pictures and end early, or loop, are refused without a hang or crash."""
    starts = [
        b"\xff\xd8\xff\xe1",
        b"\xff\xd8" + b"\xff" * 9000,
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"II*\0\xff\xff\xff\xff",
        b"RIFF\0\0\0\0WEBPVP8X",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\xff\xd8" + jpeg_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
    ]
    for start in starts:
        path = tmp_path / "avatar"
        path.write_bytes(start)
        with pytest.raises(EngineError) as refused:
            media.read_picture(path, "face.jpg", LIMITS)
        assert refused.value.code == "avatar_unreadable"
