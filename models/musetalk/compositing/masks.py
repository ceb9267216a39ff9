"""Where an inpainted face shows: from a parsed face to a soft mask of its lower half.

The rules are MuseTalk's (`raw` in 1.0, `jaw` in 1.5), to the bit; like its own, the jaw kernel
spreads upwards.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from PIL import Image

from models.arrays import U8, Bool
from models.musetalk.geometry import Box, intersect, shift_box

Mode = Literal["raw", "neck", "jaw"]

SIDE = 512
"""Rows and columns of a parsed face."""
SKIN, NOSE, MOUTH, NECK = 1, 10, (11, 12, 13), 14
CHEEK_WIDTHS = (90, 90)

_JAW_REACH, _JAW_FLAT, _JAW_TIP = 10, 12, 11
_CHEEK_KERNEL = np.pad(np.ones((1, 35), np.uint8), ((1, 1), (0, 0)))
_CHEEK_KERNEL[:, 17] = 1
_ENLARGED = 1.5
_UPPER = 0.5
_PARSED_SHARE = 0.3
_BLUR, _BLUR_PREPARED = 0.05, 0.1


def make_jaw_kernel() -> U8:
    """Return a triangle of 11 rows over a bar of 12, (33, 33) uint8 of 0 and 1.

    It dilates 16 rows up and 6 down.
    """
    kernel = np.zeros((33, 33), np.uint8)
    for row in range(_JAW_TIP):
        kernel[10 + row, 16 - row : 17 + row] = 1
    kernel[-_JAW_FLAT:, 16 - _JAW_REACH : 17 + _JAW_REACH] = 1
    return kernel


_JAW_KERNEL = make_jaw_kernel()


def make_parsing_mask(classes: U8, mode: Mode, cheeks: tuple[int, int] = CHEEK_WIDTHS) -> U8:
    """Return which pixels of a parsed face may be inpainted: (512, 512) uint8 of 0 and 255.

    classes   (512, 512) class numbers of BiSeNet
    cheeks    for `jaw` alone: columns left and right of the middle in which the face is not
              narrowed
    """
    if mode != "jaw":
        kept = (SKIN, *MOUTH) if mode == "raw" else (SKIN, *MOUTH, NECK)
        return _to_mask(np.isin(classes, kept))
    wide = cv2.dilate(_to_mask(classes == SKIN), _JAW_KERNEL)
    jaw = np.asarray(cv2.erode(wide, _CHEEK_KERNEL, iterations=2), np.uint8)
    middle = slice(SIDE // 2 - cheeks[0] + 1, SIDE // 2 + cheeks[1])
    jaw[:, middle] = wide[:, middle]
    return _to_mask((jaw > 0) & (classes != NOSE) | np.isin(classes, MOUTH))


def complete_parsing_mask(parsing: U8, box: Box) -> U8:
    """Return the mask, or an ellipse in its box where the parser saw too little of a face there.

    It knows human faces, not those of cartoons and animals.
    """
    longer = max(box[2] - box[0], box[3] - box[1], 1)
    across, down = (round(SIDE / 2 / _ENLARGED * (box[n + 2] - box[n]) / longer) for n in (0, 1))
    ellipse = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(ellipse, (SIDE // 2, SIDE // 2), (across, down), 0, 0, 360, 255, -1)
    lower = slice(SIDE // 2, SIDE)
    seen = np.count_nonzero(parsing[lower] & ellipse[lower])
    return parsing if seen >= _PARSED_SHARE * np.count_nonzero(ellipse[lower]) else ellipse


def square_around(box: Box) -> Box:
    """Return the square about a face that is parsed and masked.

    It is half as large again as the longer side of the box.
    """
    x1, y1, x2, y2 = box
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    half = int(max(x2 - x1, y2 - y1) // 2 * _ENLARGED)
    return x - half, y - half, x + half, y + half


def crop_square(frame: U8, crop: Box) -> U8:
    """Return the crop of a frame (h, w, 3) that the parser sees, black outside the frame."""
    x1, y1, x2, y2 = crop
    height, width = frame.shape[:2]
    out = np.zeros((y2 - y1, x2 - x1, *frame.shape[2:]), np.uint8)
    left, top, right, bottom = intersect(crop, (0, 0, width, height))
    out[top - y1 : bottom - y1, left - x1 : right - x1] = frame[top:bottom, left:right]
    return out


def make_blend_mask(parsing: U8, box: Box, crop: Box, *, prepared: bool) -> U8:
    """Return how much of the face shows at each pixel of the crop square, (S, S) uint8 of 0 to 255.

    parsing    (512, 512) from `make_parsing_mask`
    box        the box that the face fills
    crop       the square from `square_around`
    prepared   whether to blur twice as wide, as MuseTalk's realtime program does
    """
    hard = _mask_lower_half(parsing, box, crop)
    width = blur_width(len(hard), prepared=prepared)
    return np.asarray(cv2.GaussianBlur(hard, (width, width), 0), np.uint8) if hard.size else hard


def blur_width(side: int, *, prepared: bool) -> int:
    """Return the width in pixels, odd, of the blur of a mask with that side."""
    share = _BLUR_PREPARED if prepared else _BLUR
    return int(share * side // 2 * 2) + 1


def _mask_lower_half(parsing: U8, box: Box, crop: Box) -> U8:
    """Return the mask scaled to the crop; 0 outside the box and above the middle of the crop."""
    side = crop[2] - crop[0]
    hard = np.zeros((side, side), np.uint8)
    left, top, right, bottom = intersect(shift_box(box, -crop[0], -crop[1]), (0, int(side * _UPPER), side, side))
    if side:  # Pillow's bicubic is anti-aliased, OpenCV's is not
        scaled = np.asarray(Image.fromarray(parsing).resize((side, side), Image.Resampling.BICUBIC))
        hard[top:bottom, left:right] = scaled[top:bottom, left:right]
    return hard


def _to_mask(chosen: Bool) -> U8:
    return np.where(chosen, np.uint8(255), np.uint8(0))
