"""Videos of colour bars for tests, and their samples and tags as stored."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from models import media
from models.arrays import I16, U8
from models.media.pictures.colour import ToYuv
from models.types import Colour
from tests import media_samples as samples

FPS = Fraction(25)
BARS = [(255, 255, 255), (0, 255, 255), (255, 255, 0), (0, 255, 0), (255, 0, 255), (0, 0, 255), (255, 0, 0), (0, 0, 0)]


def bars(width: int = 192, height: int = 96) -> U8:
    """Return eight colour bars over a grey wedge."""
    picture = np.empty((height, width, 3), np.uint8)
    for n, bgr in enumerate(BARS):
        picture[:, width * n // 8 : width * (n + 1) // 8] = bgr
    picture[height * 3 // 4 :] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    return picture


def film(path: Path, width: int = 192, height: int = 96, *, count: int = 12, **asked: object) -> Path:
    picture = bars(width, height)
    return samples.video(path, count, width, height, frames=iter([picture] * count), **asked)  # type: ignore[arg-type]


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def read_planes(frame: av.VideoFrame) -> list[I16]:
    """Return the three planes of a decoded frame."""
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
        planes.append(rows[: plane.height, : plane.width].astype(np.int16))
    return planes


def read_tags(path: Path) -> tuple[int, int, int, int]:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.color_primaries, context.color_trc, context.colorspace, context.color_range


def cut_flat_areas(plane: I16) -> I16:
    """Return the inside of the bars, without their borders, which every codec smears."""
    height, width = plane.shape
    margin = width // 32
    columns = np.arange(width) * 8 % width
    inside = (columns >= 8 * margin) & (columns < width - 8 * margin)
    return plane[: height * 3 // 4 - margin, inside]


def pass_on(source: Path, folder: Path, **asked: Any) -> tuple[Path, Colour]:
    """Read `source` as planes, encode it in two parts and join them, without painting."""
    with media.VideoFrames(source, FPS, as_yuv=True, **asked) as video:
        count, colour = len(video), video.colour
        parts = []
        for start, stop in ((0, count // 2), (count // 2, count)):
            parts.append(folder / f"{start}.mp4")
            media.write_part(
                parts[-1],
                (video.read(n) for n in range(start, stop)),
                count=stop - start,
                fps=FPS,
                width=video.width,
                height=video.height,
                encoder="libx264",
                crf=18,
                progress=lambda _: None,
                colour=colour,
            )
    voice = samples.speech_wav(folder / "voice.wav", count / 25)
    media.assemble_video(parts, audio=voice, out=folder / "result.mp4", frames=count, fps=FPS, metadata={})
    return folder / "result.mp4", colour


def frame_of_bars(colour: Colour) -> U8:
    return np.concatenate([plane.astype(np.uint8).ravel() for plane in read_planes(ToYuv(colour)(bars()))]).reshape(
        144, 192
    )
