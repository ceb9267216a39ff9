"""Animated WebP, by OpenCV: the FFmpeg inside PyAV decodes only still WebP."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from models.arrays import U8
from models.media.budget import charge
from models.media.opening import unreadable_file
from models.media.pictures.stills import Still
from models.media.timeline import Timeline
from models.types import EngineError, Limits

_CHUNK_BYTES = 64 << 20
_SHORTEST_MS = 10
_MOST_FULL_PICTURES = 25


def read_webp_timeline(path: Path, still: Still, name: str, limits: Limits) -> Timeline:
    """Read when each picture is shown. Raises EngineError about the avatar."""
    durations = list(_read_durations_ms(path))
    if not durations:
        raise unreadable_file("avatar", f"{name} holds no picture")
    if len(durations) * still.pixels > _MOST_FULL_PICTURES * limits.pixels:
        message = f"{name} is an animation of {len(durations)} pictures of {still.width} x {still.height} pixels"
        raise EngineError("avatar_too_large", message, "send it as mp4: a WebP this long takes too much time to read")
    if sum(durations) > 1000 * limits.video_s:
        message = f"{name} lasts longer than {limits.video_s:.0f} s, the limit"
        raise EngineError("video_too_long", message, "send a shorter animation, or raise limits.video_s")
    return Timeline((0, *accumulate(durations[:-1])), (0,), durations[-1], Fraction(1, 1000))


def read_webp_frames(path: Path, still: Still, name: str, start: int = 0) -> Iterator[tuple[int, U8]]:
    """Yield (position, BGR or BGRA) from `start`. Each chunk decodes from the beginning."""
    at_once = max(4, _CHUNK_BYTES // (4 * still.pixels))
    while pictures := _load_chunk(path, still, name, start, at_once):
        for picture in pictures:
            yield start, picture
            start += 1


def _load_chunk(path: Path, still: Still, name: str, start: int, count: int) -> list[U8]:
    charge(pixels=(start + count) * still.pixels)
    try:
        done, animation = cv2.imreadanimation(str(path), start=start, count=count)
    except cv2.error as error:
        raise unreadable_file("avatar", f"{name} could not be read: {error.err}") from error
    if not done:
        raise unreadable_file("avatar", f"{name} could not be read")
    return [np.asarray(picture, np.uint8) for picture in animation.frames]


def _read_durations_ms(path: Path) -> Iterator[int]:
    """Yield how long each picture is shown in ms, from the headers of the ANMF chunks."""
    with path.open("rb") as file:
        position = 12
        while len(head := _read_at(file, position, 24)) >= 8:
            size = int.from_bytes(head[4:8], "little")
            if head[:4] == b"ANMF" and len(head) == 24:
                yield max(_SHORTEST_MS, int.from_bytes(head[20:23], "little"))
            position += 8 + size + size % 2


def _read_at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)
