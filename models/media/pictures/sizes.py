"""Tell from the packets of a video whether the size of its pictures changes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import av

_SEQUENCE_HEAD = b"\0\0\1\xb3"
_SEARCHED_BYTES = 4096
_MOST_MARKS = 16


class SizeWatch:
    """Sees the key pictures of a video. Sizes stand in the packets of VP8, VP9, MPEG-1 and MPEG-2;
    an H.264 broadcast has its parameters there, and one picture of each kind is decoded.
    """

    def __init__(self, codec: str) -> None:
        self._codec, self._read = codec, _MARKS.get(codec)
        self._marks: dict[bytes, bytes] = {}

    def see(self, packet: av.Packet[av.VideoStream]) -> None:
        if self._read is None or not packet.is_keyframe or len(self._marks) >= _MOST_MARKS:
            return
        memory: Any = packet  # a buffer, which its type stub doesn't say
        mark = self._read(bytes(memoryview(memory)[:_SEARCHED_BYTES]))
        if mark and mark not in self._marks:
            self._marks[mark] = bytes(packet) if self._codec == "h264" else b""

    def is_changing(self) -> bool:
        """Whether pictures of different sizes were seen."""
        if self._codec != "h264" or len(self._marks) < 2:
            return len(self._marks) > 1
        return len({_decode_size(data) for data in self._marks.values()} - {(0, 0)}) > 1


def _decode_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a key picture with its parameters; zeros where it can't be decoded."""
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)  # noqa: S101 - it decodes video
    with suppress(av.FFmpegError):
        for frame in [*decoder.decode(av.Packet(data)), *decoder.decode(None)]:
            return frame.width, frame.height
    return 0, 0


def _read_vp8(head: bytes) -> bytes:
    return head[6:10] if head[3:6] == b"\x9d\x01\x2a" else b""


def _read_vp9(head: bytes) -> bytes:
    """Return width and height less one, 32 bits, which begin within a byte."""
    profile = (head[0] >> 5 & 1) | (head[0] >> 3 & 2)
    if head[1:4] != b"\x49\x83\x42" or profile not in (0, 2):
        return b""
    bits = int.from_bytes(head[:10].ljust(10, b"\0"), "big")
    return (bits >> (80 - (68 if profile == 0 else 69)) & 0xFFFFFFFF).to_bytes(4, "big")


def _read_h264(head: bytes) -> bytes:
    """Return the sequence parameters in front of a key picture, which only broadcasts have there."""
    units = head.split(b"\0\0\1")[1:] if head.startswith(b"\0\0\0\1") else []
    return next((unit.rstrip(b"\0") for unit in units if unit and unit[0] & 31 == 7), b"")


def _read_mpeg(head: bytes) -> bytes:
    _, _, rest = head.partition(_SEQUENCE_HEAD)
    return rest[:3]


_MARKS = {
    "vp8": _read_vp8,
    "vp9": _read_vp9,
    "h264": _read_h264,
    "mpeg1video": _read_mpeg,
    "mpeg2video": _read_mpeg,
}
