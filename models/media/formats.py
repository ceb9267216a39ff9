"""Name the formats of pictures that are not read, by how their files begin."""

from __future__ import annotations

from pathlib import Path

_HEAD_BYTES = 512
_STARTS = {
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
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"<svg": "SVG",
    b"<!DOCTYPE": "HTML",
    b"<html": "HTML",
    b"#EXTM3U": "playlist (M3U)",
    b"PK\x03\x04": "ZIP archive",
    b"Rar!": "RAR archive",
    b"7z\xbc\xaf": "7-Zip archive",
    b"\x1f\x8b": "gzip archive",
    b".RMF": "RealMedia",
    b"FWS": "Flash (SWF)",
    b"CWS": "Flash (SWF)",
}
_BRANDS = {b"crx ": "camera raw (CR3)", b"jxl ": "JPEG XL"}


def name_unread_format(path: Path) -> str | None:
    """Return what people call the format of a file that is not read, or None where it is another."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<?xml"):
        return "SVG" if b"<svg" in text else "XML"
    return next((name for start, name in _STARTS.items() if head.startswith(start) or text.startswith(start)), None)
