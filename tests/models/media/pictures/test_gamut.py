"""Pictures of other colour spaces: profiles, gamma, wide gamut and HDR."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from models import media
from models.arrays import F64
from models.media.pictures.gamut import BT709_PRIMARIES, Xy, decode_srgb, rgb_to_xyz_matrix
from models.types import Colour, Limits
from tests.models.media.bars import FPS, read_tags

SKIN = np.array([200, 140, 110])
"""Red, green, blue in sRGB."""
P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.3127, 0.329))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.329))
BT2020 = ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), (0.3127, 0.329))
D50 = (63190, 65536, 54061)
PROPHOTO = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3127, 0.329))
"""Its primaries, with the white of the others."""
GAMMAS = {"p3": (P3, 2.2), "adobe": (ADOBE, 2.19921875), "prophoto": (PROPHOTO, 1.8)}


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def light_of_skin(primaries: tuple[Xy, ...]) -> F64:
    """Return the skin in linear light of other primaries."""
    to_xyz = rgb_to_xyz_matrix(BT709_PRIMARIES)
    linear: F64 = np.linalg.solve(rgb_to_xyz_matrix(primaries), to_xyz @ decode_srgb(SKIN / 255))  # type: ignore[arg-type]
    return linear


def make_profile(primaries: tuple[Xy, ...], gamma: float) -> bytes:
    """Return an ICC profile of these primaries, adapted to D50, with a plain gamma."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    white, d50 = (bradford @ xyz for xyz in ([0.95047, 1, 1.08883], [0.96422, 1, 0.82521]))
    columns = np.linalg.inv(bradford) @ np.diag(d50 / white) @ bradford @ rgb_to_xyz_matrix(primaries)  # type: ignore[arg-type]
    fixed = [b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in xyz)) for xyz in columns.T]
    names = (b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")
    return pack_profile(b"RGB ", dict(zip(names, [*fixed, *[pack_curve(gamma)] * 3], strict=True)))


def pack_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def pack_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC profile called "Test" for pixels of this space."""
    told = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Test\0" + bytes(79)
    tags = {b"desc": told, b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", *D50), **tags}
    table, data, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += name + struct.pack(">II", at + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    kinds = struct.pack(">I4sI4s4s4s12x4s28x", at + len(data), b"lcms", 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    return kinds + struct.pack(">3i48xI", *D50, len(tags)) + table + data


def stored_skin(kind: str) -> tuple[int, ...]:
    if kind not in GAMMAS:
        return tuple(SKIN)
    primaries, gamma = GAMMAS[kind]
    return tuple(round(255 * value ** (1 / gamma)) for value in light_of_skin(primaries))


def check_both_paths(path: Path, tolerance: int, *, said: str | None) -> None:
    """Check skin in BGR and in planes, the tags of the planes, and the note."""
    picture = media.read_picture(path, path.name, Limits())
    assert bool(picture.notes) == (said is not None)
    assert said is None or said in picture.notes[0]
    assert np.abs(media.read_image(path).mean(axis=(0, 1))[::-1] - SKIN).max() <= tolerance
    with media.VideoFrames(path, FPS, as_yuv=True) as frames:
        assert frames.colour == Colour()
        shown = media.yuv_to_bgr(frames.read(0), frames.colour)
    assert np.abs(shown.mean(axis=(0, 1))[::-1] - SKIN).max() <= tolerance


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("kind", ["p3", "adobe", "prophoto", "srgb"])
def test_a_profile_is_applied(tmp_path: Path, suffix: str, kind: str) -> None:
    """Skin in Display P3, Adobe RGB and ProPhoto is skin in BT.709; a profile of sRGB changes nothing."""
    path = tmp_path / f"face{suffix}"
    exact: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {"quality": 100}
    exif = Image.Exif()
    exif[0x0112] = 1
    picture = Image.new("RGB", (64, 64), stored_skin(kind))
    profile = make_profile(*GAMMAS[kind]) if kind in GAMMAS else SRGB
    picture.save(path, icc_profile=profile, exif=exif, **exact)
    check_both_paths(path, 3, said=None if kind == "srgb" else "colours of Test")


def test_the_profile_of_an_animation_is_applied(tmp_path: Path) -> None:
    """Every picture of an animated WebP is converted."""
    path = tmp_path / "moving.webp"
    pictures = [Image.new("RGB", (64, 64), stored_skin("p3")) for _ in range(2)]
    pictures[1].putpixel((0, 0), (0, 0, 0))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], lossless=True, icc_profile=make_profile(P3, 2.2))
    check_both_paths(path, 3, said="colours of Test")


def test_a_grey_profile_is_applied(tmp_path: Path) -> None:
    """Grey of another gamma becomes the same light in sRGB."""
    path = tmp_path / "grey.png"
    profile = pack_profile(b"GRAY", {b"kTRC": pack_curve(1.0)})
    Image.new("L", (32, 32), 128).save(path, icc_profile=profile)
    assert np.abs(media.read_image(path)[5, 5].astype(int) - 188).max() <= 2


def write_png(path: Path, rgb: tuple[int, ...], *chunks: tuple[bytes, bytes]) -> Path:
    """Write a picture of one colour with chunks before its data."""
    data = io.BytesIO()
    Image.new("RGB", (32, 32), rgb).save(data, "png")
    png = data.getvalue()
    more = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    path.write_bytes(png[:33] + more + png[33:])
    return path


def test_the_gamma_of_a_png_is_applied(tmp_path: Path) -> None:
    """A gamma of 1.8 or 1.0 is converted, also with primaries; one of 2.2 is sRGB."""
    linear = light_of_skin(BT709_PRIMARIES)
    for gamma in (1 / 1.8, 1.0):
        rgb = tuple(round(255 * value**gamma) for value in linear)
        chunk = (b"gAMA", struct.pack(">I", round(gamma * 100_000)))
        check_both_paths(write_png(tmp_path / "gamma.png", rgb, chunk), 3, said="gamma")
    usual = (b"gAMA", struct.pack(">I", 45455))
    check_both_paths(write_png(tmp_path / "usual.png", tuple(SKIN), usual), 1, said=None)


def test_a_png_that_names_its_colours_by_number(tmp_path: Path) -> None:
    """Display P3 by cICP is converted."""
    encoded = [12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in light_of_skin(P3)]
    rgb = tuple(round(255 * value) for value in encoded)
    check_both_paths(write_png(tmp_path / "p3.png", rgb, (b"cICP", bytes([12, 13, 0, 1]))), 3, said="Display P3")


def encode_hlg(light: F64) -> F64:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = light * (np.exp((0.75 - c) / a) + b) / 12
    signal: F64 = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)
    return signal


def encode_pq(light: F64) -> F64:
    power = (light * 203 / 10_000) ** (1305 / 8192)
    signal: F64 = ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    return signal


def encode_bt2020(light: F64) -> F64:
    return light ** (1 / 2.2)


def write_wide(path: Path, rgb: F64, transfer: int, pix_fmt: str) -> Path:
    """Write a video of one colour in BT.2020 with these tags, without loss."""
    deep = np.broadcast_to((rgb * 65535).round().astype(np.uint16), (64, 64, 3))
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx265", rate=25, options={"x265-params": "log-level=none:crf=4"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, transfer, 9, 1
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(deep), "rgb48le")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=9, dst_color_range=1)
            frame.pts, frame.color_primaries, frame.color_trc = number, 9, transfer
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("transfer", "encode", "said"), [(18, encode_hlg, "HLG"), (16, encode_pq, "PQ"), (14, encode_bt2020, "BT.2020")]
)
def test_hdr_and_wide_gamut_become_bt709(tmp_path: Path, transfer: int, encode: Any, said: str) -> None:
    """Skin in HLG, PQ and BT.2020 is skin in BT.709, tagged so in both paths, with a note."""
    path = write_wide(tmp_path / "phone.mov", encode(light_of_skin(BT2020)), transfer, "yuv420p10le")
    assert read_tags(path)[:2] == (9, transfer)
    check_both_paths(path, 8, said=said)


def test_highlights_of_hdr_keep_their_order(tmp_path: Path) -> None:
    """Light above reference white is compressed: brighter stays brighter, and white is nearly white."""
    shown = []
    for light in (0.9, 1.0, 2.0, 3.5):
        path = write_wide(tmp_path / "grey.mov", encode_hlg(np.full(3, light)), 18, "yuv420p10le")
        shown.append(float(media.read_image(path).mean()))
    assert shown == sorted(shown)
    assert shown[1] > 225
    assert shown[-1] > 250


def test_a_broken_profile_is_left_out(tmp_path: Path) -> None:
    """What is no profile, or one of another kind, changes nothing."""
    path = tmp_path / "face.png"
    for profile in (
        b"nothing",
        make_profile(P3, 2.2)[:200],
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ):
        Image.new("RGB", (32, 32), tuple(SKIN)).save(path, icc_profile=profile)
        check_both_paths(path, 1, said=None)
