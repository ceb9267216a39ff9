"""A face cut out of its frame for the inpainter, 256 x 256, scaled by Lanczos.

OpenCV's Lanczos looks at eight pixels however far it shrinks, and so leaves aliases; Pillow's looks at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from models.arrays import I64, U8

SIDE = 256


def crop_clipped(frame: U8, box: Sequence[int] | I64) -> U8:
    """Return the face as MuseTalk cuts it, (256, 256, 3) uint8 BGR.

    A box (x1, y1, x2, y2) beyond the right or the lower edge is cut short, which changes the
    face's proportions.
    """
    x1, y1, x2, y2 = (int(edge) for edge in box)
    return _resize_face(frame[y1:y2, x1:x2])


def crop_padded(frame: U8, box: Sequence[int] | I64, *, antialias: bool = False) -> U8:
    """Return the face in its own proportions, (256, 256, 3) uint8 BGR.

    Beyond the frame, the pixels at its edge repeat.

    The box (x1, y1, x2, y2) has to share at least a pixel with the frame. Within it, this is
    `crop_clipped` to the bit, unless a face that has to shrink is anti-aliased.
    """
    x1, y1, x2, y2 = (int(edge) for edge in box)
    height, width = frame.shape[:2]
    missing = (max(0, -y1), max(0, y2 - height), max(0, -x1), max(0, x2 - width))
    inside = frame[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)]
    crop = np.asarray(cv2.copyMakeBorder(inside, *missing, cv2.BORDER_REPLICATE), np.uint8)
    return _shrink_face(crop) if antialias and max(crop.shape[:2]) > SIDE else _resize_face(crop)


def _shrink_face(crop: U8) -> U8:
    return np.asarray(Image.fromarray(crop).resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.uint8)


def _resize_face(crop: U8) -> U8:
    return np.asarray(cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_LANCZOS4), np.uint8)
