"""The contact sheet of a result: nine of its frames with their times, and its figures below."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from models.arrays import U8

ACROSS = 3
TILE = 320
"""The longer side of a frame on the sheet, in pixels."""
GAP, LINE, DARK = 4, 22, 24
"""Pixels between frames, height of a line of text, and the grey around them."""
_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45
_WORDS = {
    "sharpness": "sharpness",
    "drift": "drift",
    "jitter": "jitter %",
    "seam": "seam",
    "no_face": "no face",
    "sync": "sync",
    "lag_ms": "lag ms",
    "silent_motion": "silent motion",
}


def choose_frames(frames: int) -> list[int]:
    """Return the numbers of nine frames spread over a video, of all where it has fewer.

    >>> choose_frames(90)
    [5, 15, 25, 35, 45, 55, 65, 75, 85]
    """
    return sorted({(2 * place + 1) * frames // (2 * ACROSS**2) for place in range(ACROSS**2)})


def choose_tile_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of a frame on the sheet, both even."""
    scale = min(1.0, TILE / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def draw_sheet(pictures: Mapping[int, U8], rate: Fraction, figures: Mapping[str, Any] | None) -> U8:
    """Return the sheet, (h, w, 3) uint8 BGR, of (height, width, 3) pictures of one size by their frame numbers."""
    height, width = next(iter(pictures.values())).shape[:2]
    rows = -(-len(pictures) // ACROSS)
    text = format_figures(figures) if figures else []
    wide = max(ACROSS * (width + GAP) + GAP, 320)
    sheet = np.full((rows * (height + LINE + GAP) + GAP + LINE * len(text), wide, 3), DARK, np.uint8)
    for place, (number, picture) in enumerate(sorted(pictures.items())):
        top = GAP + place // ACROSS * (height + LINE + GAP)
        left = GAP + place % ACROSS * (width + GAP)
        sheet[top : top + height, left : left + width] = picture
        write_text(sheet, format_time(float(number / rate)), left + 2, top + height + LINE - 6)
    for line, words in enumerate(text):
        write_text(sheet, words, GAP + 2, sheet.shape[0] - LINE * (len(text) - line - 1) - 8)
    return sheet


def format_time(seconds: float) -> str:
    """Return minutes, seconds and hundredths.

    >>> format_time(83.456)
    '1:23.45'
    """
    hundredths = int(seconds * 100)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def format_figures(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures that are known, as lines of four."""
    known = [f"{word} {figures[name]:g}" for name, word in _WORDS.items() if figures.get(name) is not None]
    return ["   ".join(known[at : at + 4]) for at in range(0, len(known), 4)]


def write_text(sheet: U8, text: str, left: int, bottom: int) -> None:
    """Draw a line of text into a sheet."""
    cv2.putText(sheet, text, (left, bottom), _FONT, _SIZE, (230, 230, 230), 1, cv2.LINE_AA)
