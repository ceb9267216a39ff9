"""The face of the self-test: computed, the same on every machine, from no file."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import U8
from models.musetalk.inpainting.modules import SIDE

MOUTH = (slice(SIDE // 2, SIDE), slice(SIDE // 4, 3 * SIDE // 4))
"""Rows and columns of the mouth in a square of SIDE pixels."""


def draw_face(side: int = SIDE) -> U8:
    """Draw a shaded face that fills a square, (side, side, 3) BGR."""
    scale = side / SIDE
    down, across = np.mgrid[0:side, 0:side].astype(np.float32) / side
    light = 1.0 - 0.5 * (across - 0.4) ** 2 - 0.4 * (down - 0.4) ** 2
    picture = (np.stack([light * tone for tone in (132, 160, 205)], -1)).astype(np.uint8)

    def ellipse(x: float, y: float, wide: float, high: float, colour: tuple[int, int, int]) -> None:
        centre, axes = (round(x * scale), round(y * scale)), (round(wide * scale), round(high * scale))
        cv2.ellipse(picture, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)

    for x in (88, 168):
        ellipse(x, 96, 24, 12, (235, 235, 240))
        ellipse(x, 96, 10, 10, (60, 50, 40))
        ellipse(x, 74, 28, 5, (40, 50, 70))
    ellipse(128, 140, 12, 20, (120, 145, 190))
    ellipse(128, 190, 36, 13, (80, 80, 165))
    ellipse(128, 190, 28, 4, (30, 20, 60))
    return cv2.GaussianBlur(picture, (0, 0), 1.2 * scale).astype(np.uint8)


def draw_frames(width: int, height: int, count: int) -> list[U8]:
    """Draw frames in which the face sways a little, each (height, width, 3) BGR."""
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    wall = (np.stack([60 + 40 * across / width, 70 + 30 * down / height, 0 * down + 80], -1)).astype(np.uint8)
    side = height * 5 // 8
    face, frames = draw_face(side), []
    for number in range(count):
        frame = wall.copy()
        left = (width - side) // 2 + round(0.02 * width * np.sin(number / 4))
        top = (height - side) // 2
        frame[top : top + side, left : left + side] = face
        frames.append(frame)
    return frames
