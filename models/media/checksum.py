"""A checksum at the end of a part: what a disk lost may still decode, so decoding alone doesn't prove it whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

_HEAD = (8 + 32).to_bytes(4, "big") + b"free"
"""An mp4 box that players skip, as long as itself and a SHA-256."""


def append_checksum(path: Path) -> None:
    """Append the checksum of all bytes that are there."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    with path.open("ab") as file:
        file.write(_HEAD + digest)


def has_valid_checksum(path: Path) -> bool:
    """Whether the file ends with a seal, and its bytes are those that were sealed. Raises FileNotFoundError."""
    data = path.read_bytes()
    body, head, digest = data[:-40], data[-40:-32], data[-32:]
    return head == _HEAD and hashlib.sha256(body).digest() == digest
