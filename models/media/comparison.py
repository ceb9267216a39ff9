"""`python -m models.media.comparison A B`: print as JSON where two videos begin to differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

import av
import numpy as np

from models.arrays import U8
from models.media.opening import open_media

PIXELS = {"yuv420p": "yuv420p"}
"""Pictures with transparency are compared as "rgba"."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two videos begin to differ.

    frame    the first frame that differs, None: all are equal; one that only one video has differs
    levels   how much at most it does there, 0 to 255, None where only one video has it
    sound_s  seconds at which the sound begins to differ, None: it is equal
    """

    frame: int | None
    levels: int | None
    sound_s: float | None


def find_difference(first: Path, second: Path) -> Difference:
    """Compare the decoded pictures and the packets of sound. Raises FFmpegError."""
    frame, levels = find_picture(first, second)
    return Difference(frame, levels, find_sound_s(first, second))


def find_picture(first: Path, second: Path) -> tuple[int | None, int | None]:
    for number, (one, other) in enumerate(zip_longest(read_pictures(first), read_pictures(second))):
        if one is None or other is None or one.shape != other.shape:
            return number, None
        if not np.array_equal(one, other):
            return number, int(np.abs(one.astype(np.int16) - other).max())
    return None, None


def find_sound_s(first: Path, second: Path) -> float | None:
    for one, other in zip_longest(read_packets(first), read_packets(second)):
        if one is None or other is None or one[1] != other[1]:
            return (one or other)[0]
    return None


def read_pictures(path: Path) -> Iterator[U8]:
    with open_media(path, "avatar") as container:
        for frame in container.decode(container.streams.video[0]):
            yield np.asarray(frame.to_ndarray(format=PIXELS.get(frame.format.name, "rgba")), np.uint8)


def read_packets(path: Path) -> Iterator[tuple[float, bytes]]:
    """Yield the packets of the sound with their times in seconds."""
    with open_media(path, "avatar") as container:
        sounds = container.streams.audio[:1]
        for packet in container.demux(sounds) if sounds else ():
            if packet.size:
                yield float((packet.pts or 0) * (packet.time_base or 0)), bytes(packet)


def main(words: Sequence[str] | None = None) -> int:
    first, second = map(Path, sys.argv[1:] if words is None else words)
    try:
        print(json.dumps(asdict(find_difference(first, second))))
    except (av.FFmpegError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
