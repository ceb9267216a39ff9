"""Bytes of still pictures for tests."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import U8


def encode_still(suffix: str, picture: np.ndarray) -> bytes:
    done, data = cv2.imencode(suffix, picture)
    assert done
    return data.tobytes()


def detailed_picture(width: int = 640, height: int = 480) -> U8:
    """Return a picture whose JPEG has hundreds of kilobytes, like one from a camera."""
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (3, 3), 0), np.uint8)


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body
