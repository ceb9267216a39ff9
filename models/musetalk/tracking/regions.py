"""The regions that the pose net sees: a whole frame, or one person's head and shoulders."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import U8, Floats
from models.musetalk.nets import dwpose

Region = tuple[float, float, float, float]
"""Middle x, y, width and height in pixels of the frame, three wide to four high; may reach beyond
the frame."""


def whole_frame_region(width: int, height: int) -> Region:
    """Return MuseTalk's region: the whole frame and an eighth of it on each side.

    It is extended to the net's shape.
    """
    return region_around(width / 2, height / 2, 1.25 * width, 1.25 * height)


def region_around(x: float, y: float, width: float, height: float) -> Region:
    """Return the smallest region about (x, y) of the net's shape with these sides."""
    shape = dwpose.WIDTH / dwpose.HEIGHT
    return (x, y, width, width / shape) if width > height * shape else (x, y, height * shape, height)


def face_region(box: Floats) -> Region:
    """Return head and shoulders of the person with this face.

    They are four faces high, with the face above the middle.
    """
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    side = max(x2 - x1, y2 - y1)
    return region_around((x1 + x2) / 2, (y1 + y2) / 2 + 0.75 * side, 3 * side, 4 * side)


def crop_region(frame: U8, region: Region) -> U8:
    """Return a region as the pose net sees it, (384, 288, 3), black outside the frame."""
    x, y, width, _ = region
    scale = dwpose.WIDTH / width
    turn = np.array([[scale, 0, dwpose.WIDTH / 2 - scale * x], [0, scale, dwpose.HEIGHT / 2 - scale * y]])
    return np.asarray(cv2.warpAffine(frame, turn, (dwpose.WIDTH, dwpose.HEIGHT), flags=cv2.INTER_LINEAR), np.uint8)


def to_frame_pixels(points: Floats, region: Region) -> Floats:
    """Return points (k, 2) of the net's input in pixels of the frame, as MuseTalk rounds."""
    middle, sides = np.array(region[:2], np.float32), np.array(region[2:], np.float32)
    return points / np.array([dwpose.WIDTH, dwpose.HEIGHT]) * sides + middle - 0.5 * sides
