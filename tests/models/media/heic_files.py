"""HEIC photos for tests, tiled as phones store them. They need pillow-heif."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.arrays import U8

TILE = 64


def write_heic(path: Path, rgb: U8, **more: Any) -> Path:
    """Write one picture, (h, w, 3 or 4) uint8 RGB or RGBA, without tiles."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    Image.fromarray(rgb).save(path, "HEIF", quality=95, **more)
    return path


def write_tiled_heic(path: Path, rgb: U8) -> Path:
    """Write (h, w, 3) uint8 RGB as a grid of tiles of 64 x 64 pixels, of which the last ones are cut."""
    height, width = rgb.shape[:2]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.pad(rgb, ((0, rows * TILE - height), (0, columns * TILE - width), (0, 0)), mode="edge")
    tiles = [
        padded[TILE * row : TILE * (row + 1), TILE * column : TILE * (column + 1)]
        for row in range(rows)
        for column in range(columns)
    ]
    encoded = [_encode_tile(tile) for tile in tiles]
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    items = [*(data for _, data in encoded), grid]
    path.write_bytes(_pack_file(items, encoded[0][0], (width, height)))
    return path


def _encode_tile(rgb: U8) -> tuple[bytes, bytes]:
    """Return the decoder's configuration (the box hvcC) and the data of a tile."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    made = io.BytesIO()
    Image.fromarray(rgb).save(made, "HEIF", quality=95, chroma=444)
    data = made.getvalue()
    boxes = dict(_list_boxes(data))
    at = data.index(b"hvcC") - 4
    return data[at : at + int.from_bytes(data[at : at + 4], "big")], boxes[b"mdat"]


def _list_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


def _pack_file(items: list[bytes], hvcc: bytes, size: tuple[int, int]) -> bytes:
    """Return the file: tiles first, the grid as the last item."""
    head = _box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    empty = _pack_meta(items, hvcc, size, 0)
    return head + _pack_meta(items, hvcc, size, len(head) + len(empty) + 8) + _box(b"mdat", b"".join(items))


def _pack_meta(items: list[bytes], hvcc: bytes, size: tuple[int, int], at: int) -> bytes:
    count, places, entries = len(items), b"", b""
    for number, item in enumerate(items, 1):
        places += struct.pack(">HHHII", number, 0, 1, at, len(item))
        at += len(item)
        kind = b"grid" if number == count else b"hvc1"
        entries += _full(b"infe", struct.pack(">HH", number, 0) + kind + b"\0", version=2, flags=number < count)
    tiles = range(1, count)
    refers = _box(b"dimg", struct.pack(f">HH{count - 1}H", count, count - 1, *tiles))
    of_tile, of_grid = (_full(b"ispe", struct.pack(">II", *sides)) for sides in ((TILE, TILE), size))
    links = b"".join(struct.pack(">HBBB", number, 2, 0x81, 2) for number in tiles) + struct.pack(">HBB", count, 1, 3)
    return _full(
        b"meta",
        _full(b"hdlr", bytes(4) + b"pict" + bytes(13))
        + _full(b"pitm", struct.pack(">H", count))
        + _full(b"iloc", struct.pack(">BBH", 0x44, 0, count) + places)
        + _full(b"iinf", struct.pack(">H", count) + entries)
        + _full(b"iref", refers)
        + _box(b"iprp", _box(b"ipco", hvcc + of_tile + of_grid) + _full(b"ipma", struct.pack(">I", count) + links)),
    )


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def _full(kind: bytes, body: bytes, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + body)
