"""Still pictures as phones, cameras and programs write them, and as attackers do."""

from __future__ import annotations

import base64
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import media
from models.arrays import U8
from models.types import EngineError, Limits
from tests import media_samples as samples
from tests.media_samples import quarters

ROOT = Path(__file__).parents[3]
LIMITS = Limits()
CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwPFxgWFBgSFBUU/8"
    "AAFAgACAAIBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAkI/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAA4EQwBNAFkASwAAPwBU0eCqIG//2Q=="
)
"""8 x 8 pixels of cyan 0, magenta 200, yellow 255, black 30, as a print shop would send them."""


def encoded(suffix: str, picture: np.ndarray) -> bytes:
    done, data = cv2.imencode(suffix, picture)
    assert done
    return data.tobytes()


def detailed(width: int = 640, height: int = 480) -> U8:
    """So much detail that a JPEG of it has hundreds of kilobytes, like one from a camera."""
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (3, 3), 0), np.uint8)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def exif_with_thumbnail(thumbnail: bytes) -> bytes:
    """An EXIF segment as cameras write it: turned by 90 degrees in the first directory, a small JPEG in the second."""
    first = struct.pack("<H", 1) + struct.pack("<HHII", 0x112, 3, 1, 6) + struct.pack("<I", 26)
    second = struct.pack("<H", 2) + struct.pack("<HHIIHHII", 0x201, 4, 1, 56, 0x202, 4, 1, len(thumbnail)) + bytes(4)
    return segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + first + second + thumbnail)


@pytest.mark.parametrize("name", ["face.jpg", "face.jpeg", "avatar", "face.png"])
def test_a_camera_jpeg_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    """A picture larger than what a decoder looks at first is recognised by its content."""
    path = tmp_path / name
    path.write_bytes(encoded(".jpg", detailed()))
    assert path.stat().st_size > 100_000
    assert (media.read_picture(path, name, LIMITS).width, media.read_image(path, name).shape) == (640, (480, 640, 3))


def test_a_thumbnail_is_not_the_picture(tmp_path: Path) -> None:
    """A small JPEG inside the EXIF data is passed over, and the orientation beside it is honoured."""
    whole, small = encoded(".jpg", quarters(400, 300)), encoded(".jpg", np.zeros((40, 40, 3), np.uint8))
    path = tmp_path / "camera.jpg"
    path.write_bytes(whole[:2] + exif_with_thumbnail(small) + whole[2:])
    picture = media.read_picture(path, "camera.jpg", LIMITS)
    assert (picture.kind, picture.width, picture.height) == ("image", 300, 400)
    assert np.abs(media.read_image(path, "camera.jpg").astype(int) - np.rot90(quarters(400, 300), -1)).mean() < 8


def test_a_photo_that_drags_a_second_one_along_is_one_image(tmp_path: Path) -> None:
    """Depth maps, gain maps and the video of a "motion photo" stand behind the picture and don't count."""
    path = tmp_path / "motion.jpg"
    path.write_bytes(encoded(".jpg", quarters()) + encoded(".jpg", 255 - quarters()) + b"\0\0\0\x18ftypmp42")
    assert media.read_picture(path, "motion.jpg", LIMITS).kind == "image"
    assert np.abs(media.read_image(path, "motion.jpg").astype(int) - quarters()).mean() < 8


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
    """Sixteen bits, greys, palettes; what is transparent shows white behind it."""
    path = tmp_path / name
    path.write_bytes(encoded(path.suffix, stored))
    assert np.abs(media.read_image(path, name).astype(int) - seen).mean() < 12  # a GIF is dithered


def test_a_print_shops_jpeg(tmp_path: Path) -> None:
    """CMYK becomes the colour that it prints."""
    path = tmp_path / "cmyk.jpg"
    path.write_bytes(CMYK_JPEG)
    assert np.abs(media.read_image(path, "cmyk.jpg").mean(axis=(0, 1)) - (0, 49, 225)).max() < 3


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_half_a_picture_is_no_picture(tmp_path: Path, suffix: str, share: float) -> None:
    """An interrupted upload is refused, never shown with a grey rest."""
    whole = tmp_path / f"whole{suffix}"
    whole.write_bytes(encoded(suffix, detailed(320, 240)))
    cut = samples.cut(whole, tmp_path / "avatar", share)
    with pytest.raises(EngineError) as refused:
        media.read_picture(cut, "face", LIMITS)
    assert refused.value.code == "avatar_unreadable"
    assert "face" in refused.value.message
    assert str(tmp_path) not in refused.value.message


def test_tiles_of_a_phone_are_not_taken_for_the_picture(tmp_path: Path) -> None:
    """A HEIC photo of several tiles is refused with what to do, instead of showing one tile."""
    path = tmp_path / "IMG_0001.heic"
    import av

    with av.open(str(path), "w", format="mp4", options={"brand": "heic"}) as output:
        streams = [output.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for stream in streams:
            output.mux([*stream.encode(av.VideoFrame(64, 64, "yuv420p")), *stream.encode(None)])
    with pytest.raises(EngineError, match="HEIC") as refused:
        media.read_picture(path, "IMG_0001.heic", LIMITS)
    assert refused.value.hint == "save it as jpg"


def bombs() -> dict[str, bytes]:
    """Small files that claim 16,000 x 16,000 pixels."""
    side = 16_000
    jpeg = encoded(".jpg", quarters())
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
    """The size is read from the header of each format before a decoder allocates anything of that size."""
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *answers, grown_kib = run.stdout.splitlines()
    assert answers == [f"{name} avatar_too_large" for name in sorted(bombs())]
    assert int(grown_kib) < 32 * 1024


def test_what_looks_like_a_header_and_isnt(tmp_path: Path) -> None:
    """Files that begin like pictures and break off, or loop, are refused, none hangs or crashes."""
    starts = [
        b"\xff\xd8\xff\xe1",
        b"\xff\xd8" + b"\xff" * 9000,
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"II*\0\xff\xff\xff\xff",
        b"RIFF\0\0\0\0WEBPVP8X",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\xff\xd8" + segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
    ]
    for start in starts:
        path = tmp_path / "avatar"
        path.write_bytes(start)
        with pytest.raises(EngineError) as refused:
            media.read_picture(path, "face.jpg", LIMITS)
        assert refused.value.code == "avatar_unreadable"


def test_a_jpeg_can_be_written_for_the_preview(tmp_path: Path) -> None:
    """It comes back as it was, odd sizes too."""
    media.write_jpeg(tmp_path / "preview.jpg", quarters(91, 61))
    assert np.abs(media.read_image(tmp_path / "preview.jpg", "p").astype(int) - quarters(91, 61)).mean() < 4
    assert [path.name for path in tmp_path.iterdir()] == ["preview.jpg"]
