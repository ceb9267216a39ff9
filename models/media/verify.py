"""The proof that a finished video is what was asked for: read again from the disk, to its end."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from models.media.opening import open_media, ready
from models.media.sound import open_sound, scan
from models.types import EngineError


def verify_video(path: Path, frames: int, fps: Fraction) -> None:
    """Read a finished mp4 to its end. Raises EngineError result_invalid naming the first thing that is not right.

    Right means: the index stands before the data; exactly `frames` pictures, each of which decodes without any fault,
    exactly 1 / fps after the one before, the first at 0; sound that starts at 0, decodes, and ends within one frame of
    the picture.
    """
    if not index_comes_first(path):
        raise invalid("its index doesn't stand at the front")
    try:
        times = list(_shown_at(path))
    except av.FFmpegError as error:
        raise invalid(f"it can't be read to its end: {error.strerror}") from error
    if len(times) != frames:
        raise invalid(f"it has {len(times)} frames instead of {frames}")
    for number, time in enumerate(times):
        if time != number / fps:
            raise invalid(f"frame {number} is shown at {float(time):.6f} s instead of {float(number / fps):.6f} s")
    _check_sound(path, frames / fps, fps)


def _shown_at(path: Path) -> Iterator[Fraction]:
    with open_media(path, "avatar") as container:
        if len(container.streams.video) != 1:
            raise invalid("it has no pictures")
        stream = ready(container.streams.video[0], err_detect="explode")
        for frame in container.decode(stream):
            if frame.is_corrupt or frame.pts is None or frame.time_base is None:
                raise invalid("one of its pictures is damaged")
            yield frame.pts * frame.time_base


def _check_sound(path: Path, seen: Fraction, fps: Fraction) -> None:
    try:
        heard = scan(path, "it", float("inf")).sound
        with open_sound(path, "it") as (_, stream):
            start = (stream.start_time or 0) * (stream.time_base or Fraction(1))
    except EngineError as error:
        raise invalid(f"it can't be read to its end: {error.message}") from error
    if start != 0:
        raise invalid(f"its sound starts at {float(start):.3f} s")
    if abs(heard.duration_s - seen) > 1 / fps:
        raise invalid(f"its sound ends at {heard.duration_s:.3f} s, its pictures at {float(seen):.3f} s")


def invalid(why: str) -> EngineError:
    return EngineError("result_invalid", f"the finished video failed its check: {why}", "it is made again", retry=True)


def index_comes_first(path: Path) -> bool:
    """Whether the mp4's `moov` box stands before `mdat`, so that players can start before all is there."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind in (b"moov", b"mdat"):
                return kind == b"moov"
            file.seek(max(size, 8) - 8, 1)
    return False
