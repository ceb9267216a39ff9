"""The boxes of an mp4 or mov, by their places in the file. Standard library only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

_BLOCK_BYTES = 1 << 20
MOST_BOXES = 4096
"""At one level. A result has six, and a few for each track."""
UNSIGNED = ("ftyp", "free", "skip")
"""Boxes that a manifest doesn't cover: their hashes are part of what is signed."""
SEAL_KIND, SEAL_NAME = "free", b"musedrop"
"""A box at the end with a name and the SHA-256 of all before it: a manifest has bytes that it can't cover itself."""


class TooManyBoxes(ValueError):
    """A file has more boxes than any video needs: the library takes very long for them."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box of the outermost level: where it starts, and its length with its header, in bytes."""

    kind: str
    start: int
    length: int


def list_boxes(file: BinaryIO) -> list[Box]:
    """Return the boxes in their order. Raises ValueError where the file is no whole row of boxes."""
    size = file.seek(0, 2)
    found, at = list[Box](), 0
    while at < size:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8].decode("latin-1")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        length = length or size - at
        if length < 8 or at + length > size:
            raise ValueError(f"the box {kind!a} at byte {at} has a wrong length")
        if len(found) >= MOST_BOXES:
            raise TooManyBoxes(f"it has more than {MOST_BOXES} boxes")
        found.append(Box(kind, at, length))
        at += length
    return found


def has_index_first(boxes: list[Box]) -> bool:
    """Whether `moov` precedes `mdat`, so that players can start early."""
    kinds = [box.kind for box in boxes]
    return "moov" in kinds and "mdat" in kinds and kinds.index("moov") < kinds.index("mdat")


def hash_boxes(file: BinaryIO, boxes: list[Box], *kinds: str) -> str:
    """Return the SHA-256 of all boxes of these kinds, one after the other."""
    digest = hashlib.sha256()
    for box in boxes:
        if box.kind in kinds:
            file.seek(box.start)
            left = box.length
            while left and (block := file.read(min(left, _BLOCK_BYTES))):
                digest.update(block)
                left -= len(block)
    return digest.hexdigest()


def hash_file(file: BinaryIO, stop: int | None = None) -> str:
    """Return the SHA-256 of all bytes, or of those before `stop`."""
    digest = hashlib.sha256()
    left = file.seek(0, 2) if stop is None else stop
    file.seek(0)
    while left and (block := file.read(min(left, _BLOCK_BYTES))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


def make_seal(file: BinaryIO, stop: int | None = None) -> bytes:
    """Return the box that belongs at the end of a file, or at `stop`."""
    body = SEAL_NAME + bytes.fromhex(hash_file(file, stop))
    return (8 + len(body)).to_bytes(4, "big") + SEAL_KIND.encode() + body


def is_sealed(file: BinaryIO, boxes: list[Box]) -> bool:
    """Whether the last box is the seal of all bytes before it."""
    last = boxes[-1]
    file.seek(last.start)
    found = file.read(min(last.length, 64))
    return found == make_seal(file, last.start)
