"""Read files by the code of this folder or of another one, for benchmarks.media: names that version 0.1.0 has, too.

Reads lines "KIND PATH" from its input and answers each with the CPU time in seconds, or "-" where it can't be read.
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from inspect import signature
from pathlib import Path
from typing import Any

from models import media
from models.types import EngineError, Limits


def read_file(kind: str, path: Path) -> None:
    """Do with a file what a job does: probe it, and read all of it."""
    if kind == "sound":
        media.read_sound(path, path.name, Limits())
        media.read_waveform(path)
        return
    picture = media.read_picture(path, path.name, Limits())
    if picture.kind == "image":
        media.read_image(path)
        return
    rate = picture.fps or Fraction(25)
    wishes = signature(media.VideoFrames).parameters
    planes = "as_yuv" if "as_yuv" in wishes else "as_planes"
    for as_yuv in (False, True):
        asked: dict[str, Any] = {planes: as_yuv}
        with media.VideoFrames(path, rate, picture.width, picture.height, **asked) as video:
            for index in range(len(video)):
                video.read(index)


def serve() -> None:
    for line in sys.stdin:
        kind, _, path = line.rstrip("\n").partition(" ")
        began_s = time.process_time()
        try:
            read_file(kind, Path(path))
            print(time.process_time() - began_s, flush=True)
        except EngineError:
            print("-", flush=True)


if __name__ == "__main__":
    serve()
