"""Name files that are no sound, or sound of a kind that is not read, by their first bytes."""

from __future__ import annotations

from pathlib import Path

from models.types import EngineError

_UNREAD = {
    b"#!SILK_V3": "SILK voice message",
    b"\x02#!SILK_V3": "SILK voice message",
    b"\x7f\xfe\x80\x01": "DTS file",
    b"\xfe\x7f\x01\x80": "DTS file",
    b"\x1f\xff\xe8\x00": "DTS file",
    b"\xff\x1f\x00\xe8": "DTS file",
    b"DTSHDHDR": "DTS-HD file",
    b"\x06\x0e\x2b\x34": "MXF film",
    b"MThd": "MIDI file, which holds notes and no sound",
    b".RMF": "RealMedia file",
    b".ra\xfd": "RealAudio file",
    b"DSD ": "DSD file",
    b"FRM8": "DSD file",
    b"MAC ": "Monkey's Audio file",
    b"MPCK": "Musepack file",
    b"MP+": "Musepack file",
    b"TTA1": "True Audio file",
    b"#EXTM3U": "playlist, which names other files",
    b"%PDF": "PDF document",
    b"PK\x03\x04": "zip archive",
    b"Rar!": "rar archive",
    b"<!DOCTYPE": "web page",
    b"<!doctype": "web page",
    b"<html": "web page",
    b"{": "text file",
}
_PICTURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}


def check_format(path: Path, name: str) -> None:
    """Refuse pictures and kinds of sound that are not read. Raises EngineError audio_unreadable."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return  # opening it says why
    picture = _find_picture(head)
    if picture:
        message = f"{name} is a {picture} picture and no sound; are face and voice swapped?"
        raise EngineError("audio_unreadable", message, "give the voice as `audio` and the face as `avatar`")
    for magic, kind in _UNREAD.items():
        if head.startswith(magic):
            hint = "convert it to wav, mp3 or m4a, which are read"
            raise EngineError("audio_unreadable", f"{name} is a {kind}: this format is not read", hint)


def _find_picture(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    return next((kind for magic, kind in _PICTURES.items() if head.startswith(magic)), None)
