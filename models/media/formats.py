"""Name what a file is by how it begins: a picture, a sound, or a format that is not read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from models.types import EngineError

_HEAD_BYTES = 512


class Format(NamedTuple):
    """What people call a format. A film may hold pictures, sound, or both."""

    name: str
    kind: Literal["picture", "sound", "film", "unread"] = "unread"


_UNREAD = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "Photoshop (PSD)",
    b"gimp xcf": "GIMP (XCF)",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"qoif": "QOI",
    b"DDS ": "DirectDraw (DDS)",
    b"\0\0\x01\0": "icon (ICO)",
    b"SDPX": "DPX",
    b"XPDS": "DPX",
    b"II\x1a\0\0\0HEAPCCDR": "camera raw (CRW)",
    b"II*\0\x10\0\0\0CR": "camera raw (CR2)",
    b"IIRO": "camera raw (ORF)",
    b"IIU\0": "camera raw (RW2)",
    b"FUJIFILMCCD-RAW": "camera raw (RAF)",
    b"#!SILK_V3": "SILK voice message",
    b"\x02#!SILK_V3": "SILK voice message",
    b"\x7f\xfe\x80\x01": "DTS",
    b"\xfe\x7f\x01\x80": "DTS",
    b"\x1f\xff\xe8\x00": "DTS",
    b"\xff\x1f\x00\xe8": "DTS",
    b"DTSHDHDR": "DTS-HD",
    b"MThd": "MIDI, which holds notes and no sound",
    b".RMF": "RealMedia",
    b".ra\xfd": "RealAudio",
    b"DSD ": "DSD",
    b"FRM8": "DSD",
    b"MAC ": "Monkey's Audio",
    b"MPCK": "Musepack",
    b"MP+": "Musepack",
    b"TTA1": "True Audio",
    b"Creative Voice": "Creative Voice (VOC)",
    b"#EXTM3U": "playlist (M3U), which names other files",
    b"[playlist]": "playlist (PLS), which names other files",
    b"ffconcat": "playlist (ffconcat), which names other files",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"{\\rtf": "rich text (RTF)",
    b"{": "text file (JSON)",
    b"<svg": "SVG",
    b"\xd0\xcf\x11\xe0": "Office document",
    b"PK\x03\x04": "ZIP archive",
    b"Rar!": "RAR archive",
    b"7z\xbc\xaf": "7-Zip archive",
    b"\x1f\x8b": "gzip archive",
    b"\x28\xb5\x2f\xfd": "Zstandard archive",
    b"\xfd7zXZ": "XZ archive",
    b"BZh": "bzip2 archive",
    b"FWS": "Flash (SWF)",
    b"CWS": "Flash (SWF)",
    b"MZ": "Windows program",
    b"\x7fELF": "program (ELF)",
    b"SQLite format 3": "SQLite database",
}
_PICTURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"P5\n": "Netpbm",
    b"P6\n": "Netpbm",
    b"P7\n": "Netpbm",
}
_SOUNDS = {
    b"ID3": "MP3",
    b"fLaC": "FLAC",
    b"caff": "CAF",
    b"#!AMR": "AMR",
    b".snd": "AU",
    b"riff\x2e\x91\xcf\x11": "Wave64",
    b"wvpk": "WavPack",
    b"\x0bw": "AC-3",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
    b"\xff\xfb": "MP3",
    b"\xff\xfa": "MP3",
    b"\xff\xf3": "MP3",
    b"\xff\xf2": "MP3",
}
_FILMS = {
    b"\x06\x0e\x2b\x34": "MXF",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"OggS": "Ogg",
    b"FLV": "Flash video",
    b"\0\0\x01\xba": "MPEG",
    b"0&\xb2u\x8ef\xcf\x11": "Windows Media",
}
_READ: tuple[tuple[Literal["picture", "sound", "film"], dict[bytes, str]], ...] = (
    ("picture", _PICTURES),
    ("sound", _SOUNDS),
    ("film", _FILMS),
)
_BRANDS = {
    b"crx ": Format("camera raw (CR3)"),
    b"jxl ": Format("JPEG XL"),
    b"heic": Format("HEIC", "picture"),
    b"heix": Format("HEIC", "picture"),
    b"mif1": Format("HEIC", "picture"),
    b"avif": Format("AVIF", "picture"),
    b"M4A ": Format("M4A", "sound"),
    b"M4B ": Format("M4A", "sound"),
}
HEIC_BRANDS = (b"heic", b"heix", b"mif1", b"hevc")
_CHUNKED = {b"WEBP": Format("WebP", "picture"), b"WAVE": Format("WAV", "sound"), b"AIFF": Format("AIFF", "sound")}
_CHUNKED |= {b"AIFC": Format("AIFF", "sound"), b"AVI ": Format("AVI", "film")}
_HINTS = {"audio": "convert it to wav, mp3 or m4a, which are read", "avatar": "save it as jpg, png or mp4"}


def check_format(path: Path, name: str, kind: Literal["audio", "avatar"]) -> None:
    """Refuse formats that are not read, a picture as the voice, and a sound as the face.

    Raises EngineError audio_unreadable, avatar_unreadable.
    """
    try:
        found = name_format(path)
    except OSError:
        return  # opening it says why
    if found is None or found.kind == "film":
        return
    if found.kind == "unread":
        message = f"{name} is a file of the format {found.name}, which is not read here"
        raise EngineError(f"{kind}_unreadable", message, _HINTS[kind])
    if (found.kind, kind) in (("picture", "audio"), ("sound", "avatar")):
        wanted = "sound" if kind == "audio" else "picture"
        message = f"{name} is a {found.name} {found.kind} and no {wanted}; are face and voice swapped?"
        raise EngineError(f"{kind}_unreadable", message, "give the voice as `audio` and the face as `avatar`")


def read_brand(path: Path) -> bytes:
    """Return the main brand of an mp4 or of its relatives, four letters; b"" for other files. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[8:12] if head[4:8] == b"ftyp" else b""


def name_format(path: Path) -> Format | None:
    """Return what the file is; None for text and what has no mark of its own. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], Format("MP4 or MOV", "film"))
    if head[:4] in (b"RIFF", b"RF64", b"BW64", b"FORM"):
        return _CHUNKED.get(head[8:12])
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:9].lower() == b"<!doctype" or text[:5].lower() == b"<html":
        return Format("HTML web page")
    if text.startswith(b"<?xml"):
        return Format("SVG" if b"<svg" in text else "XML")
    unread = next((name for start, name in _UNREAD.items() if head.startswith(start) or text.startswith(start)), None)
    if unread is not None:
        return Format(unread)
    for kind, starts in _READ:
        if found := next((name for start, name in starts.items() if head.startswith(start)), None):
            return Format(found, kind)
    return None
