"""Read the header of a still before any decoder opens it: size, orientation, animation.

FFmpeg reads the EXIF orientation too, but gives only its angle, which a mirrored picture shares
with a turned one.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from models.media.budget import charge
from models.types import EngineError

WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, ORIENTATION, TILE_WIDTH = 256, 257, 259, 262, 274, 322
_ODD_TIFF = {COMPRESSION: (6, 7, 34925, 50000, 50001), PHOTOMETRIC: (5, 6, 8)}
"""JPEG, LZMA, Zstandard and WebP inside TIFF; inks, YCbCr and Lab."""
_MAX_ENTRIES = 4096
_PACKED = (b"zTXt", b"iCCP")
_LARGEST_NOTE, _UNPACKED_AT_ONCE = 64 << 20, 1 << 20
_SIZED = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Still:
    """Size in pixels as stored, the EXIF orientation 1 to 8 that says how to turn it, and what
    FFmpeg calls the format.

    `demuxer` is None where FFmpeg tells by the content whether it moves; a JPEG it recognises only
    by its name or when all of it lies in the first few kilobytes.
    """

    width: int
    height: int
    orientation: int = 1
    demuxer: str | None = None
    animated_webp: bool = False
    loaded: bool = False

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read_still(path: Path) -> Still | None:
    """Read the header of a JPEG, PNG, GIF, BMP, WebP or TIFF; None for other or broken files."""
    with path.open("rb") as file:
        head = file.read(32)
        for magic, read in _READERS.items():
            if head.startswith(magic):
                try:
                    return read(file, head)
                except (struct.error, IndexError):
                    return None
    return None


def is_cut_off(path: Path) -> bool:
    """Whether a JPEG or a PNG lacks its end."""
    data = path.read_bytes()
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-4096:]
    return data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")


def _read_jpeg(file: BinaryIO, _head: bytes) -> Still:
    orientation, has_profile = 1, False
    for marker, size in _walk_jpeg_segments(file):
        if marker in _SIZED:
            height, width, channels = struct.unpack(">xHHB", file.read(6))
            return Still(width, height, orientation, "jpeg_pipe", loaded=has_profile and channels == 4)
        has_profile = has_profile or (marker == 0xE2 and file.read(11) == b"ICC_PROFILE")
        if marker == 0xE1:
            orientation = read_exif_orientation(file.read(size)) or orientation
    raise IndexError("no frame header")


def _walk_jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield marker and length of each segment, the file positioned at its first byte."""
    position = 2
    for _ in range(_MAX_ENTRIES):
        file.seek(position)
        mark, marker, size = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF or marker == 0xDA:
            return
        if marker == 0xFF:  # padding before a marker
            position += 1
            continue
        yield marker, size - 2
        position += 2 + size


def _read_png(file: BinaryIO, head: bytes) -> Still:
    width, height = struct.unpack(">II", head[16:24])
    return Still(width, height, _read_png_notes(file))


def _read_png_notes(file: BinaryIO) -> int:
    """Charge the size of the packed texts and profiles, which a decoder unpacks whole; return the orientation."""
    fd, position, orientation = file.fileno(), 8, 0
    for _ in range(_MAX_ENTRIES):
        if len(fields := os.pread(fd, 8, position)) < 8:
            break
        size, kind = int.from_bytes(fields[:4], "big"), fields[4:]
        if kind in _PACKED:
            _charge_unpacked(os.pread(fd, min(size, _LARGEST_NOTE), position + 8))
        elif kind == b"eXIf" and not orientation:
            orientation = read_exif_orientation(os.pread(fd, min(size, 1 << 16), position + 8)) or 1
        position += 12 + size
    return orientation or 1


def _charge_unpacked(note: bytes) -> None:
    """Unpack what follows the keyword. Raises EngineError media_too_costly where it is too much."""
    _, _, rest = note.partition(b"\0")
    unpacker, size = zlib.decompressobj(), 0
    rest = rest[1:]  # the method
    with suppress(zlib.error):  # damaged: a decoder stops there, too
        while rest and not unpacker.eof and size <= _LARGEST_NOTE:
            unpacked = len(unpacker.decompress(rest, _UNPACKED_AT_ONCE))
            charge(size_bytes=unpacked)
            size, rest = size + unpacked, unpacker.unconsumed_tail
    if size > _LARGEST_NOTE:
        message = f"the picture holds a text or a colour profile of more than {_LARGEST_NOTE >> 20} MiB"
        raise EngineError("media_too_costly", message, "save it again without its metadata")


def _read_webp(file: BinaryIO, head: bytes) -> Still:
    if head[8:12] != b"WEBP":
        raise IndexError("another kind of RIFF")
    kind = head[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return Still(width & 0x3FFF, height & 0x3FFF, demuxer="webp_pipe")
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return Still((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, demuxer="webp_pipe")
    width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    return Still(width, height, _find_webp_orientation(file), "webp_pipe", animated_webp=bool(head[20] & 2))


def _read_gif(_file: BinaryIO, head: bytes) -> Still:
    return Still(*struct.unpack("<HH", head[6:10]))


def _read_bmp(_file: BinaryIO, head: bytes) -> Still:
    width, height = struct.unpack("<HH" if head[14] == 12 else "<ii", head[18:22] if head[14] == 12 else head[18:26])
    return Still(abs(width), abs(height), demuxer="bmp_pipe")


def _read_tiff(file: BinaryIO, _head: bytes) -> Still:
    tags = _read_tags(file, 0)
    is_odd = any(tags.get(tag) in values for tag, values in _ODD_TIFF.items()) or TILE_WIDTH in tags
    turn = _check_orientation(tags.get(ORIENTATION, 1))
    return Still(tags.get(WIDTH, 0), tags.get(HEIGHT, 0), turn, "tiff_pipe", loaded=is_odd)


_READERS = {
    b"\xff\xd8": _read_jpeg,
    b"\x89PNG\r\n\x1a\n": _read_png,
    b"RIFF": _read_webp,
    b"GIF8": _read_gif,
    b"BM": _read_bmp,
    b"II*\0": _read_tiff,
    b"MM\0*": _read_tiff,
}


def _find_webp_orientation(file: BinaryIO) -> int:
    """Return the orientation in the EXIF chunk, or 1."""
    position = 12
    for _ in range(_MAX_ENTRIES):
        file.seek(position)
        fields = file.read(8)
        if len(fields) < 8:
            break
        size = int.from_bytes(fields[4:], "little")
        if fields[:4] == b"EXIF":
            return read_exif_orientation(file.read(min(size, 1 << 16))) or 1
        position += 8 + size + size % 2
    return 1


def read_exif_orientation(data: bytes) -> int | None:
    """Return the orientation in an EXIF block, with or without "Exif" in front, or None."""
    try:
        return _check_orientation(_read_tags(io.BytesIO(data.removeprefix(b"Exif\0\0")), 0).get(ORIENTATION, 0)) or None
    except (struct.error, IndexError):
        return None


def _check_orientation(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


def _read_tags(file: BinaryIO, start: int) -> dict[int, int]:
    """Return the integers in the first directory of TIFF data, or raise struct.error."""
    file.seek(start)
    order = {b"II": "<", b"MM": ">"}.get(file.read(2))
    if order is None:
        raise struct.error("not TIFF data")
    (offset,) = struct.unpack(f"{order}xxI", file.read(6))
    file.seek(start + offset)
    (count,) = struct.unpack(f"{order}H", file.read(2))
    tags = {}
    for _ in range(min(count, _MAX_ENTRIES)):
        tag, kind, _number, raw = struct.unpack(f"{order}HHI4s", file.read(12))
        if kind in (3, 4):
            tags[tag] = struct.unpack(f"{order}Hxx" if kind == 3 else f"{order}I", raw)[0]
    return tags
