"""A checksum at the end of a part: a file that a disk damaged may still decode."""

from __future__ import annotations

import hashlib
from pathlib import Path

_HEAD = (8 + 32).to_bytes(4, "big") + b"free"
"""The header of an mp4 box that players skip, with the length of itself and a SHA-256."""


def append_checksum(path: Path) -> None:
    """Append the SHA-256 of all bytes of the file."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    with path.open("ab") as file:
        file.write(_HEAD + digest)


def has_valid_checksum(path: Path) -> bool:
    """Whether the file ends with the checksum of the bytes before it. Raises FileNotFoundError."""
    data = path.read_bytes()
    body, head, digest = data[:-40], data[-40:-32], data[-32:]
    return head == _HEAD and hashlib.sha256(body).digest() == digest
