"""The length that the header of a sound promises, and whether a shorter file ends inside a frame."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer

_STREAMED_WAV = 0x7FFFF000
_HUGE_WAV = 1 << 29
_ROUND_SIZES = (1_000_000, 1 << 20)
_RIFF_HEAD = 44
_MOST_TAGS = 4096
"""What tags take at most that some programs put behind a wav."""
_MP3_KBITS = {  # MPEG 1, and MPEG 2 and 2.5, layer III
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = (44_100, 48_000, 32_000)
_EBML_MASTERS = {0x18538067, 0x1F43B675, 0xA0}  # Segment, Cluster, BlockGroup


def read_promised_s(path: Path, container: InputContainer, stream: av.AudioStream) -> Fraction:
    """Return the length in seconds in the file's header; 0 without a reliable one."""
    kind = container.format.name.split(",")[0]
    if kind in ("flac", "aiff") or (kind == "mp3" and _has_xing(path)):
        return (stream.duration or 0) * (stream.time_base or Fraction(0))
    if kind == "matroska" and len(container.streams) == 1:
        return Fraction((container.duration or 0) - (container.start_time or 0), av.time_base)
    if kind == "wav":
        missing_s = Fraction(count_missing_wav_bytes(path) * 8, stream.codec_context.bit_rate or 1)
        return missing_s + (stream.duration or 0) * (stream.time_base or Fraction(0))
    return Fraction(0)


def ends_inside_frame(path: Path, kind: str, last: bytes) -> bool:
    """Whether a file that is shorter than its header says ends inside of its last packet.

    False means that its last frame is whole: it was cut by a program that left the old length.
    """
    if kind == "flac":
        return _compute_crc16(last) != 0
    if kind == "mp3":
        return len(last) < _read_mp3_size(last)
    if kind == "matroska":
        with path.open("rb") as file:
            return _ends_inside_element(file, 0, path.stat().st_size)
    return True


def count_missing_wav_bytes(path: Path) -> int:
    """Return how many bytes of a wav are missing by its header.

    0 where the header's length was invented, as programs do that write before they know it.
    FFmpeg reports the length of the bytes that exist.
    """
    with path.open("rb") as file:
        head = file.read(_RIFF_HEAD)
    there, claimed = path.stat().st_size, int.from_bytes(head[4:8], "little") + 8
    if not head.startswith(b"RIFF") or claimed <= there or _is_invented(claimed, there):
        return 0
    return claimed - there


def has_invented_length(path: Path) -> bool:
    """Whether a wav says that it is longer than it can be."""
    with path.open("rb") as file:
        head = file.read(8)
    claimed = int.from_bytes(head[4:8], "little") + 8
    there = path.stat().st_size
    return head.startswith(b"RIFF") and claimed > there and _is_invented(claimed, there)


def has_second_wav(path: Path) -> bool:
    """Whether another wav follows the first in the same file."""
    with path.open("rb") as file:
        head = file.read(8)
        size = int.from_bytes(head[4:8], "little")
        file.seek(8 + size + size % 2)
        return head.startswith(b"RIFF") and file.read(4) == b"RIFF"


def has_more_than_told(path: Path) -> bool:
    """Whether much follows the end that the header of a wav says, and is no other wav."""
    with path.open("rb") as file:
        head = file.read(8)
    told = int.from_bytes(head[4:8], "little") + 8
    is_told = head.startswith(b"RIFF") and told > _RIFF_HEAD
    return is_told and path.stat().st_size - told > _MOST_TAGS and not has_second_wav(path)


def _is_invented(claimed: int, there: int) -> bool:
    """Whether a length is none that a file has: the largest number, or a huge or a round one."""
    if claimed >= _STREAMED_WAV or (claimed >= _HUGE_WAV and 2 * there < claimed):
        return True
    sizes = (claimed, claimed - 8, claimed - _RIFF_HEAD)
    return any(size and size % round_size in (0, round_size - 1) for size in sizes for round_size in _ROUND_SIZES)


def _has_xing(path: Path) -> bool:
    """Whether an mp3 states its number of frames; else FFmpeg guesses from the bit rate."""
    with path.open("rb") as file:
        head = file.read(10)
        size = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        file.seek(size + 10 if head.startswith(b"ID3") else 0)
        start = file.read(256)
    return b"Xing" in start or b"Info" in start


def _compute_crc16(frame: bytes) -> int:
    """Return the CRC of a whole FLAC frame with its checksum: 0 if it is intact."""
    crc = 0
    for byte in frame:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ (0x8005 if crc & 0x8000 else 0)
        crc &= 0xFFFF
    return crc


def _read_mp3_size(frame: bytes) -> int:
    """Return the bytes of an mp3 frame by its header."""
    if len(frame) < 4 or frame[0] != 0xFF or frame[2] >> 4 == 15 or frame[2] >> 2 & 3 == 3:
        return len(frame) + 1
    version = frame[1] >> 3 & 3  # 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5
    rate = _MP3_RATES[frame[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}.get(version, 0)
    bits_per_s = 1000 * _MP3_KBITS[version == 3][frame[2] >> 4]
    return (144 if version == 3 else 72) * bits_per_s // rate + (frame[2] >> 1 & 1)


def _ends_inside_element(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether a webm or mkv ends, at `stop`, inside of a block or of another element."""
    for kind, at, end in _list_elements(file, start, stop):
        if kind in _EBML_MASTERS and (end is None or end > stop):
            return _ends_inside_element(file, at, stop)
        if end is None or end > stop:
            return True
    return False


def _list_elements(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[int, int, int | None]]:
    """Yield identity, start and end of the contents of each element; end None is not stated."""
    at = start
    while at < stop:
        file.seek(at)
        head = file.read(12)
        width = 9 - head[0].bit_length()
        identity, head = int.from_bytes(head[:width], "big"), head[width:]
        size_width = 9 - head[0].bit_length() if head and head[0] else 9
        if len(head) < size_width or size_width > 8:
            yield 0, at, None
            return
        mask = (1 << 7 * size_width) - 1
        size, at = int.from_bytes(head[:size_width], "big") & mask, at + width + size_width
        end = None if size == mask else at + size
        yield identity, at, end
        at = end if end is not None else at  # the children of one without an end follow
