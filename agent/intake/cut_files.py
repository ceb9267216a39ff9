"""Whether more of a media file may come: by its header or its tail, without decoding it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agent.fs import open_regular
from agent.jobs.spec import AUDIO_SUFFIXES, AVATAR_SUFFIXES

HEAD_BYTES, TAIL_BYTES, FRAMES_BYTES = 4096, 1 << 16, 1 << 13
UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0xFFFFFFFF, 0xFFFFFFFF - 36)
"""What a RIFF header says while its length isn't known."""
MPEG_KBPS = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MPEG_RATES = (44_100, 48_000, 32_000)


@dataclass(frozen=True, slots=True)
class FileEnds:
    """The first and the last bytes of a file."""

    file: BinaryIO
    size: int
    head: bytes
    tail: bytes


def is_cut(path: Path) -> bool:
    """Whether the end of the file is missing, or its kind doesn't say where it ends; False where it can't be read."""
    suffix = path.suffix.lower()
    check = CHECKS.get(suffix)
    if check is None:
        return suffix in AVATAR_SUFFIXES | AUDIO_SUFFIXES
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(HEAD_BYTES)
            file.seek(max(0, size - TAIL_BYTES))
            return check(FileEnds(file, size, head, file.read(TAIL_BYTES)))
    except (OSError, struct.error, IndexError):  # also where the file changes meanwhile
        return False


def is_riff_cut(ends: FileEnds) -> bool:
    """WAV, AVI, WebP: the length follows the first four bytes; while it isn't known, more may come."""
    if len(ends.head) < 12:
        return b"RIFF".startswith(ends.head[:4])
    (promised,) = struct.unpack_from("<I", ends.head, 4)
    return ends.head[:4] == b"RF64" or promised in UNKNOWN_SIZES or promised + 8 > ends.size


def is_form_cut(ends: FileEnds) -> bool:
    """AIFF: as RIFF, with the large end first."""
    (promised,) = struct.unpack_from(">I", ends.head.ljust(8, b"\0"), 4)
    return promised in UNKNOWN_SIZES or promised + 8 > ends.size


def is_mp4_cut(ends: FileEnds) -> bool:
    """A chain of boxes, one of which is `moov`, or `meta` in pictures."""
    place, has_index = 0, False
    while place + 8 <= ends.size:
        ends.file.seek(place)
        length, kind, longer = struct.unpack(">I4sQ", ends.file.read(16).ljust(16, b"\0"))
        length = {0: ends.size - place, 1: longer}.get(length, length)
        has_index |= kind in (b"moov", b"meta")
        if length < 8 or place + length > ends.size:
            return True
        place += length
    return place != ends.size or not has_index


def is_matroska_cut(ends: FileEnds) -> bool:
    """The EBML header, then a segment that says its size; one that has none may go on."""
    place = ends.head.find(b"\x18\x53\x80\x67")
    if place < 0:
        return len(ends.head) < HEAD_BYTES and b"\x1a\x45\xdf\xa3".startswith(ends.head[:4])
    field = ends.head[place + 4 : place + 13].ljust(9, b"\0")
    width = 9 - field[0].bit_length()
    value = int.from_bytes(field[:width], "big") & ((1 << 7 * width) - 1)
    return value == (1 << 7 * width) - 1 or place + 4 + width + value > ends.size


def is_ogg_cut(ends: FileEnds) -> bool:
    """The last page is whole, and says that it is the last."""
    place = ends.tail.rfind(b"OggS")
    if place < 0 or place + 27 > len(ends.tail):
        return True
    flags, count = ends.tail[place + 5], ends.tail[place + 26]
    length = 27 + count + sum(ends.tail[place + 27 : place + 27 + count])
    return not flags & 4 or place + length > len(ends.tail)


def is_mpeg_sound_cut(ends: FileEnds) -> bool:
    """MP3: a chain of frames, the last of which is whole, and as many bytes as the first one says. Tags may follow."""
    place = max(ends.head.find(b"Xing"), ends.head.find(b"Info"))
    if place < 0 and b"VBRI" not in ends.head and not ends.head.startswith(b"ID3"):
        return True  # nothing says how many frames there are
    if place >= 0:
        (flags,) = struct.unpack_from(">I", ends.head, place + 4)
        (promised,) = struct.unpack_from(">I", ends.head, place + 8 + 4 * (flags & 1)) if flags & 2 else (0,)
        if promised > ends.size:
            return True
    tail = ends.tail[-FRAMES_BYTES:]
    for start in range(len(tail) - 4):
        place, frames = start, 0
        while (length := _read_frame_bytes(tail, place)) > 0:
            place, frames = place + length, frames + 1
        if frames >= 3:
            return place > len(tail)
    return False


def _read_frame_bytes(data: bytes, place: int) -> int:
    """Return the length of the MP3 frame there, 0 if there is none."""
    if place + 7 > len(data) or data[place] != 0xFF or data[place + 1] & 0xE0 != 0xE0:
        return 0
    one, two = data[place + 1 : place + 3]
    version, layer, rate, samples = one >> 3 & 3, one >> 1 & 3, two >> 4, two >> 2 & 3
    if version == 1 or layer != 1 or rate in (0, 15) or samples == 3:
        return 0
    kbps, hertz = MPEG_KBPS[1 if version == 3 else 2][rate - 1], MPEG_RATES[samples] >> {3: 0, 2: 1, 0: 2}[version]
    return (144_000 if version == 3 else 72_000) * kbps // hertz + (two >> 1 & 1)


CHECKS: dict[str, Callable[[FileEnds], bool]] = {
    **dict.fromkeys((".wav", ".bwf", ".avi", ".webp"), is_riff_cut),
    **dict.fromkeys((".aif", ".aiff", ".aifc"), is_form_cut),
    **dict.fromkeys((".mp4", ".mov", ".qt", ".m4v", ".m4a", ".m4b", ".m4r", ".3gp", ".3g2"), is_mp4_cut),
    **dict.fromkeys((".heic", ".heif", ".avif"), is_mp4_cut),
    **dict.fromkeys((".mkv", ".webm", ".mka", ".weba"), is_matroska_cut),
    **dict.fromkeys((".ogg", ".opus", ".oga", ".ogv"), is_ogg_cut),
    ".mp3": is_mpeg_sound_cut,
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), lambda ends: b"\xff\xd9" not in ends.tail[-HEAD_BYTES:]),
    **dict.fromkeys((".png", ".apng"), lambda ends: b"IEND" not in ends.tail[-HEAD_BYTES:]),
    ".zip": lambda ends: b"PK\5\6" not in ends.tail,
    ".gif": lambda ends: not ends.tail.rstrip(b"\0").endswith(b";"),
}
