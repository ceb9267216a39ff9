"""The tracks of an mp4 or mov by its index alone: how many frames, when each is shown, and where its bytes are.

Standard library only: nothing is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from agent.credentials.boxes import MOST_BOXES, TooManyBoxes, list_boxes

MOST_INDEX_BYTES = 1 << 27
MOST_DURATIONS = 100


@dataclass(frozen=True, slots=True)
class Track:
    """One track.

    kind        "vide", "soun" or another handler
    codec       as the index names it, such as "avc1" or "mp4a"
    samples     how many there are: the frames of a picture
    seconds     of all of them together
    durations   the different lengths of a sample, in seconds, of which the first hundred count
    """

    kind: str
    codec: str
    samples: int
    seconds: Fraction
    durations: frozenset[Fraction]


def read_tracks(file: BinaryIO) -> list[Track]:
    """Return the tracks of an open video. Raises ValueError where its index can't be read."""
    return [_read_track(trak) for trak in _list_traks(file)]


def list_chunks(file: BinaryIO) -> list[int]:
    """Return where the chunks of samples of all tracks start, in bytes. Raises ValueError as `read_tracks` does."""
    found = list[int]()
    for trak in _list_traks(file):
        table = _find(_find(_find(trak, "mdia"), "minf"), "stbl")
        for kind, width in (("stco", "I"), ("co64", "Q")):
            for offsets in (content for name, content in _list_inner(table) if name == kind):
                found += (at for (at,) in _read_rows(offsets, width))
    return found


def _list_traks(file: BinaryIO) -> list[memoryview]:
    index = next((box for box in list_boxes(file) if box.kind == "moov"), None)
    if index is None or index.length > MOST_INDEX_BYTES:
        raise ValueError("it has no index")
    file.seek(index.start)
    moov = memoryview(file.read(index.length))
    return [trak for kind, trak in _list_inner(moov[8:]) if kind == "trak"]


def _read_track(trak: memoryview) -> Track:
    media = _find(trak, "mdia")
    table = _find(_find(media, "minf"), "stbl")
    header, handler, codec = _find(media, "mdhd"), _find(media, "hdlr"), _find(table, "stsd")
    scale = int.from_bytes(header[20:24] if bytes(header[:1]) == b"\1" else header[12:16], "big")
    if not scale:
        raise ValueError("the index lacks a part of a track")
    samples, total, lengths = 0, 0, set[int]()
    for count, length in _read_rows(_find(table, "stts"), "II"):
        samples, total = samples + count, total + count * length
        if count and len(lengths) < MOST_DURATIONS:
            lengths.add(length)
    return Track(
        kind=str(handler[8:12], "latin-1"),
        codec=str(codec[12:16], "latin-1"),
        samples=samples,
        seconds=Fraction(total, scale),
        durations=frozenset(Fraction(length, scale) for length in lengths),
    )


def _read_rows(table: memoryview, row: str) -> Iterator[tuple[int, ...]]:
    """Yield the rows of a table that has their number before them; of a shorter one, those that are there."""
    size = struct.calcsize(f">{row}")
    whole = min(int.from_bytes(table[4:8], "big"), (len(table) - 8) // size)
    return struct.iter_unpack(f">{row}", table[8 : 8 + max(0, whole) * size])


def _find(data: memoryview, kind: str) -> memoryview:
    """Return the content of the first box of a kind. Raises ValueError where there is none."""
    found = next((content for name, content in _list_inner(data) if name == kind), None)
    if found is None:
        raise ValueError("the index lacks a part of a track")
    return found


def _list_inner(data: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Yield kind and content of each box. Raises ValueError where one has a wrong length."""
    at, left = 0, MOST_BOXES
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if not left:
            raise TooManyBoxes(f"it has more than {MOST_BOXES} boxes")
        if length < 8 or at + length > len(data):
            raise ValueError("a box of the index has a wrong length")
        yield str(data[at + 4 : at + 8], "latin-1"), data[at + 8 : at + length]
        at, left = at + length, left - 1
