"""The tray's picture: a face in a rounded square, coloured by what goes on, with a ring for progress. Pure.

Pixels are ARGB32 in network byte order, as StatusNotifierItem has them.
"""

from __future__ import annotations

import math
from functools import cache

SIZES = (22, 44)
COLOURS = {
    "idle": (0x5B, 0x5B, 0xD6),
    "working": (0x5B, 0x5B, 0xD6),
    "paused": (0x9A, 0x6A, 0x00),
    "trouble": (0xC6, 0x28, 0x28),
    "away": (0x70, 0x78, 0x84),
}
WHITE, TRACK = (255, 255, 255), (0xB4, 0xB4, 0xEC)
STEPS = 32
"""Progress is drawn in so many steps: pictures between two of them look the same."""
SUBPIXELS = (0.25, 0.75)

Pixmap = tuple[int, int, bytes]


def draw_icons(kind: str, percent: float) -> list[Pixmap]:
    """Return the picture in each size: width, height, pixels. `percent`: of the work, drawn where kind is working."""
    step = round(STEPS * min(100.0, max(0.0, percent)) / 100) if kind == "working" else 0
    return [(size, size, _draw(kind, step, size)) for size in SIZES]


@cache
def _draw(kind: str, step: int, size: int) -> bytes:
    pixels = bytearray()
    for y in range(size):
        for x in range(size):
            samples = [_colour_at((x + dx) / size, (y + dy) / size, kind, step) for dx in SUBPIXELS for dy in SUBPIXELS]
            seen = [sample for sample in samples if sample is not None]
            alpha = 255 * len(seen) // len(samples)
            mean = [sum(sample[i] for sample in seen) // max(1, len(seen)) for i in range(3)]
            pixels += bytes((alpha, *mean))
    return bytes(pixels)


def _colour_at(x: float, y: float, kind: str, step: int) -> tuple[int, int, int] | None:
    """Return the colour at a place of the unit square, None where it is transparent."""
    from_middle = math.hypot(x - 0.5, y - 0.5)
    if kind == "working":
        if from_middle > 0.5:
            return None
        if from_middle > 0.38:
            turn = math.atan2(x - 0.5, 0.5 - y) / (2 * math.pi) % 1
            return COLOURS[kind] if turn < step / STEPS else TRACK
        return _draw_face(x, y, 0.24, COLOURS[kind])
    across, down = abs(x - 0.5) - 0.28, abs(y - 0.5) - 0.28
    if max(across, down) > 0.2 or math.hypot(max(across, 0), max(down, 0)) > 0.2:
        return None
    return _draw_face(x, y, 0.3, COLOURS[kind])


def _draw_face(x: float, y: float, radius: float, ground: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return white in the face, and the ground outside of it and in its mouth."""
    if math.hypot(x - 0.5, y - 0.5) > radius:
        return ground
    in_mouth = y > 0.5 + radius * 0.2 and abs(math.hypot(x - 0.5, y - 0.5) - radius * 0.55) < radius * 0.16
    return ground if in_mouth else WHITE
