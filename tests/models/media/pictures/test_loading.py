"""Stills that FFmpeg decodes wrongly or not at all: HEIC in tiles, JPEG inside TIFF, inks, transparent AVIF."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from models import media
from models.media import source
from models.media.pictures import loading
from models.types import EngineError, Limits
from tests.media_samples import quarters
from tests.models.media.bars import FPS
from tests.models.media.heic_files import write_heic, write_tiled_heic
from tests.models.media.pictures.test_gamut import GAMMAS, SKIN, make_profile, stored_skin
from tests.models.media.transparent import draw_rgba, read_thirds

RGB = np.ascontiguousarray(quarters(90, 60)[..., ::-1])


def check_quarters(path: Path, tolerance: float) -> None:
    """Check the picture in BGR and in planes."""
    assert media.read_picture(path, path.name, Limits()).kind == "image"
    shown = media.read_image(path).astype(int)
    assert shown.shape == (60, 90, 3)
    assert np.abs(shown - RGB[..., ::-1]).mean() <= tolerance
    with media.VideoFrames(path, FPS, as_yuv=True) as frames:
        assert (
            np.abs(media.yuv_to_bgr(frames.read(0), frames.colour).astype(int) - RGB[..., ::-1]).mean() <= tolerance + 3
        )


KINDS: dict[str, dict[str, Any]] = {
    "RGB in JPEG": {"compression": "jpeg"},
    "RGB in Zstandard": {"compression": "zstd"},
    "RGB in LZMA": {"compression": "lzma"},
    "YCbCr": {"mode": "YCbCr"},
    "YCbCr in JPEG": {"mode": "YCbCr", "compression": "jpeg"},
    "CMYK": {"mode": "CMYK"},
    "LAB": {"mode": "LAB"},
    "CMYK in JPEG": {"mode": "CMYK", "compression": "jpeg"},
    "RGBA in JPEG": {"mode": "RGBA", "compression": "jpeg"},
    "packed": {"compression": "packbits"},
    "plain": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tiff_has_its_colours(tmp_path: Path, kind: str) -> None:
    """FFmpeg decodes JPEG inside TIFF to black or green, without an error."""
    asked = dict(KINDS[kind])
    Image.fromarray(RGB).convert(asked.pop("mode", "RGB")).save(tmp_path / "scan.tif", **asked)
    check_quarters(tmp_path / "scan.tif", 6)


def test_a_tiff_is_turned_as_it_says(tmp_path: Path) -> None:
    """The orientation counts, whoever decodes it."""
    exif = Image.Exif()
    exif[274] = 6
    for compression in (None, "jpeg"):
        path = tmp_path / f"{compression}.tif"
        Image.fromarray(np.ascontiguousarray(np.rot90(RGB))).save(path, compression=compression, exif=exif)
        check_quarters(path, 6)


def test_a_kind_of_tiff_that_is_not_read_is_named(tmp_path: Path) -> None:
    """The message says which."""
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(tmp_path / "scan.tif")
    with pytest.raises(EngineError, match="TIFF") as refused:
        media.read_picture(tmp_path / "scan.tif", "scan.tif", Limits())
    assert refused.value.code == "avatar_unreadable"


def test_a_picture_of_one_colour_is_asked_of_another_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that fails without a word leaves one colour; where the picture has one, it stays."""
    for suffix in (".png", ".tif", ".bmp", ".jpg"):
        path = tmp_path / f"grey{suffix}"
        Image.new("RGB", (64, 48), (120, 120, 120)).save(path)
        assert np.ptp(media.read_image(path)) <= 1
    Image.fromarray(RGB).save(tmp_path / "face.bmp")
    monkeypatch.setattr(source.Movie, "is_blank", lambda _: True)
    check_quarters(tmp_path / "face.bmp", 0)
    monkeypatch.setattr(source, "has_one_value", lambda _: None)
    monkeypatch.setattr(loading, "_open", fail_to_open)
    with pytest.raises(EngineError, match="is a BMP of a kind that is not read here"):
        media.read_picture(tmp_path / "face.bmp", "face.bmp", Limits())


def fail_to_open(*_: object, **__: object) -> None:
    raise OSError("no decoder")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_a_profile_of_inks_is_applied(tmp_path: Path, suffix: str) -> None:
    """CMYK with an ICC profile has the colours of the print, within 3 levels; without one those of plain inks."""
    path = tmp_path / f"print{suffix}"
    inks = np.full((64, 64, 4), (51, 102, 153, 0), np.uint8)
    Image.fromarray(inks, "CMYK").save(path, icc_profile=make_ink_profile())
    assert any("print" in note for note in media.read_picture(path, path.name, Limits()).notes)
    # the profile's inks are weaker than plain ones: each takes half of its light
    wanted = [255 * (1 - 0.5 * ink / 255) for ink in (51, 102, 153)]
    assert np.abs(media.read_image(path).mean(axis=(0, 1))[::-1] - wanted).max() <= 3


def make_ink_profile() -> bytes:
    """Return a profile of inks that each take half of the light of their colour, and of a black that does nothing."""
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    steps = 9
    levels = np.linspace(0, 1, steps)
    grid = np.stack(np.meshgrid(*[levels] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    rgb = np.rint(255 * (1 - 0.5 * grid)).astype(np.uint8).reshape(1, -1, 3)
    lab = np.asarray(ImageCms.applyTransform(Image.fromarray(rgb), to_lab)).reshape(-1, 3).copy()
    lab[:, 1:] ^= 128  # Pillow stores a and b with a sign, mft1 around 128
    table = np.repeat(lab, steps, axis=0).tobytes()  # black has no effect
    curve = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, steps, 0]) + identity + curve * 4 + table + curve * 3
    tags = {b"A2B0": lut, b"A2B1": lut, b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Inks\0" + bytes(79)
    head, data, at = b"", b"", 132 + 12 * len(tags)
    for name, body in tags.items():
        head += name + struct.pack(">II", at + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    kinds = struct.pack(">I4sI4s4s4s12x4s28x", at + len(data), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    return kinds + struct.pack(">3i48xI", 63190, 65536, 54061, len(tags)) + head + data


def test_tiles_of_a_phone_are_put_together(tmp_path: Path) -> None:
    """A HEIC photo of several tiles is one picture, with the extra `heic`."""
    check_quarters(write_tiled_heic(tmp_path / "IMG_0001.heic", RGB), 4)


def test_a_photo_of_a_phone_has_its_colours(tmp_path: Path) -> None:
    """HEIC with a P3 profile, and one with transparency."""
    skin = np.full((64, 64, 3), stored_skin("p3"), np.uint8)
    write_heic(tmp_path / "p3.heic", skin, icc_profile=make_profile(*GAMMAS["p3"]))
    assert np.abs(media.read_image(tmp_path / "p3.heic").mean(axis=(0, 1))[::-1] - SKIN).max() <= 3
    assert media.read_picture(tmp_path / "p3.heic", "p3.heic", Limits()).notes
    write_heic(tmp_path / "cut.heic", draw_rgba())
    transparent, opaque, half = read_thirds(media.read_image(tmp_path / "cut.heic"))
    assert min(transparent) >= 253
    assert np.abs(np.subtract(opaque, SKIN)).max() <= 4
    assert np.abs(np.subtract(half, (SKIN + 255) / 2)).max() <= 5


def test_without_the_extra_the_hint_names_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal says what to install, and what a phone can do instead."""
    path = write_tiled_heic(tmp_path / "IMG_0001.heic", RGB)
    monkeypatch.setattr(source, "has_heif", lambda: False)
    with pytest.raises(EngineError, match="HEIC photo, stored as tiles") as refused:
        media.read_picture(path, "IMG_0001.heic", Limits())
    assert "pip install '.[heic]'" in refused.value.hint
    assert "Most Compatible" in refused.value.hint


def test_a_transparent_avif_is_over_white(tmp_path: Path) -> None:
    """FFmpeg decodes its colours alone."""
    Image.fromarray(draw_rgba()).save(tmp_path / "cut.avif", quality=95)
    transparent, opaque, half = read_thirds(media.read_image(tmp_path / "cut.avif"))
    assert min(transparent) >= 253
    assert np.abs(np.subtract(opaque, SKIN)).max() <= 4
    assert np.abs(np.subtract(half, (SKIN + 255) / 2)).max() <= 5


@pytest.mark.parametrize("name", ["face.tif", "IMG_0001.heic", "cut.avif"])
def test_a_picture_that_is_too_large_is_refused_before_it_is_loaded(tmp_path: Path, name: str) -> None:
    """The limit counts for all decoders."""
    if name.endswith("heic"):
        path = write_tiled_heic(tmp_path / name, RGB)
    else:
        path = tmp_path / name
        Image.fromarray(draw_rgba(90, 60)).save(path, **({"compression": "jpeg"} if name.endswith("tif") else {}))
    with pytest.raises(EngineError) as refused:
        media.read_picture(path, name, Limits(pixels=90 * 60 - 1))
    assert refused.value.code == "avatar_too_large"
