"""Pictures and videos with transparency for tests: opaque skin in the middle, half of it right, none left."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from models.arrays import U8

SKIN = (200, 140, 110)
WIDTH, HEIGHT = 96, 64
CODECS = {"vp8.webm": ("libvpx", "yuva420p"), "vp9.webm": ("libvpx-vp9", "yuva420p")}
CODECS |= {"prores.mov": ("prores_ks", "yuva444p10le"), "qtrle.mov": ("qtrle", "argb"), "png.mov": ("png", "rgba")}
STILLS = ("face.png", "face.webp", "face.tif", "moving.webp", "moving.png")


def draw_rgba(width: int = WIDTH, height: int = HEIGHT) -> U8:
    """Return (h, w, 4) uint8 RGBA."""
    picture = np.empty((height, width, 4), np.uint8)
    picture[..., :3] = SKIN
    picture[..., 3] = np.array([0, 255, 128], np.uint8)[3 * np.arange(width) // width]
    return picture


def write_transparent(folder: Path, name: str, count: int = 4) -> Path:
    """Write one of `STILLS` or `CODECS`; those that move have `count` pictures."""
    path, rgba = folder / name, draw_rgba()
    if name in STILLS:
        first = Image.fromarray(rgba)
        later = [Image.fromarray(np.roll(rgba, n, axis=0) // np.uint8(1)) for n in range(1, count)]
        for number, one in enumerate(later):
            one.putpixel((0, number), (1, 2, 3, 255))  # so that no two pictures are the same
        moving = {"save_all": True, "append_images": later, "duration": 40} if name.startswith("moving") else {}
        first.save(path, **moving, **({"lossless": True} if name.endswith("webp") else {}))  # type: ignore[arg-type]
        return path
    codec, pix_fmt = CODECS[name]
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options={"auto-alt-ref": "0"} if name == "vp8.webm" else {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format=pix_fmt, dst_colorspace=5)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def read_thirds(bgr: U8) -> tuple[list[float], list[float], list[float]]:
    """Return red, green and blue in the middle of the transparent, the opaque and the half transparent part."""
    height, width = bgr.shape[:2]
    rows = bgr[height // 4 : height * 3 // 4]
    parts = (rows[:, round(width * part) - 4 : round(width * part) + 4, ::-1] for part in (1 / 6, 1 / 2, 5 / 6))
    transparent, opaque, half = (list(map(float, part.mean(axis=(0, 1)))) for part in parts)
    return transparent, opaque, half
