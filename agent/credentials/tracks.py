"""The tracks of an mp4 or mov by its index alone: how many frames, when each is shown, and where its bytes are.

Standard library only: nothing is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from agent.credentials.boxes import list_boxes

MOST_INDEX_BYTES = 1 << 28
_OUTER = ("trak", "mdia", "minf", "stbl")


@dataclass(frozen=True, slots=True)
class Track:
    """One track.

    kind        "vide", "soun" or another handler
    codec       as the index names it, such as "avc1" or "mp4a"
    samples     how many there are: the frames of a picture
    seconds     of all of them together
    durations   the different lengths of a sample, in seconds
    """

    kind: str
    codec: str
    samples: int
    seconds: Fraction
    durations: frozenset[Fraction]


def read_tracks(file: BinaryIO) -> list[Track]:
    """Return the tracks of an open video. Raises ValueError where its index can't be read."""
    index = next((box for box in list_boxes(file) if box.kind == "moov"), None)
    if index is None or index.length > MOST_INDEX_BYTES:
        raise ValueError("it has no index")
    file.seek(index.start)
    moov = file.read(index.length)
    return [_read_track(dict(_walk(trak))) for kind, trak in _list_inner(moov[8:]) if kind == "trak"]


def _read_track(boxes: dict[str, bytes]) -> Track:
    try:
        header, times = boxes["mdhd"], boxes["stts"]
        scale = int.from_bytes(header[20:24] if header[0] == 1 else header[12:16], "big")
        runs = [
            (int.from_bytes(times[at : at + 4], "big"), int.from_bytes(times[at + 4 : at + 8], "big"))
            for at in range(8, min(len(times), 8 + 8 * int.from_bytes(times[4:8], "big")), 8)
        ]
        total = sum(count * length for count, length in runs)
        return Track(
            kind=boxes["hdlr"][8:12].decode("latin-1"),
            codec=boxes["stsd"][12:16].decode("latin-1"),
            samples=sum(count for count, _ in runs),
            seconds=Fraction(total, scale),
            durations=frozenset(Fraction(length, scale) for count, length in runs if count),
        )
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise ValueError("the index lacks a part of a track") from error


def _walk(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the boxes of a track, those inside of others included; of two of one kind the first is yielded last."""
    inner = [*_list_inner(data)]
    for kind, content in reversed(inner):
        yield kind, content
        if kind in _OUTER:
            yield from _walk(content)


def _list_inner(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield kind and content of each box. Raises ValueError where one has a wrong length."""
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length < 8 or at + length > len(data):
            raise ValueError("a box of the index has a wrong length")
        yield data[at + 4 : at + 8].decode("latin-1"), data[at + 8 : at + length]
        at += length
