"""Parts for tests: numbered frames, encoded as an engine's frames are."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from models import media
from models.arrays import U8
from tests import media_samples as samples


def write_numbered(
    path: Path, start: int, stop: int, fps: Fraction = Fraction(25), width: int = 96, height: int = 64
) -> Path:
    media.write_part(
        path,
        (samples.numbered(n, width, height) for n in range(start, stop)),
        count=stop - start,
        fps=fps,
        width=width,
        height=height,
        encoder="libx264",
        crf=10,
        progress=lambda _: None,
    )
    return path


def write_part(path: Path, frames: Iterator[U8], count: int, *, encoder: str = "libx264", **asked: object) -> Path:
    progress = asked.pop("progress", lambda _: None)
    fps = asked.pop("fps", Fraction(25))
    size = {"width": 96, "height": 64} | asked
    media.write_part(path, frames, count=count, fps=fps, encoder=encoder, crf=14, progress=progress, **size)  # type: ignore[arg-type]
    return path
