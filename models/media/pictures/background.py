"""What shows through transparent pixels, and pictures that keep their transparency."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import U8, U16


class Background:
    """A colour, blue, green and red; or a picture that fills the frame and is cut at its edges."""

    def __init__(self, bgr: tuple[int, int, int] = (255, 255, 255), picture: U8 | None = None) -> None:
        """`picture` is (h, w, 3) uint8 BGR of any size."""
        self._picture = picture
        self._shown: U8 = np.full((1, 1, 3), bgr, np.uint8)

    def blend(self, bgr: U8, opacity: U8 | U16) -> U8:
        """Return (h, w, 3) uint8 BGR over the background; `opacity` is (h, w) or (h, w, 1), 0 to 255."""
        if opacity.min() == 255:
            return bgr
        wide = opacity.astype(np.uint16).reshape(bgr.shape[:2])
        rest, behind = 255 - wide, self._fit(bgr.shape[1], bgr.shape[0])
        blended = np.empty_like(bgr)
        for channel in range(3):
            sums = bgr[..., channel] * wide
            sums += behind[..., channel] * rest
            sums += 128  # division by 255 with rounding, by shifts alone
            sums += sums >> 8
            sums >>= 8
            blended[..., channel] = sums
        return blended

    def _fit(self, width: int, height: int) -> U8:
        """Return what fills a frame of that size; the last one is kept."""
        if self._picture is None or self._shown.shape[:2] == (height, width):
            return self._shown
        tall, wide = self._picture.shape[:2]
        scale = max(width / wide, height / tall)
        size = (max(width, round(wide * scale)), max(height, round(tall * scale)))
        scaled = cv2.resize(self._picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        self._shown = np.ascontiguousarray(scaled[top : top + height, left : left + width], np.uint8)
        return self._shown


WHITE, BLACK = Background(), Background((0, 0, 0))


def parse_colour(colour: str) -> Background:
    """Return the background of a colour "#rrggbb"."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return Background((blue, green, red))


def measure_opacity(over_white: U8, over_black: U8) -> U8:
    """Return (h, w) uint8, how opaque a picture is that was blended over white and over black."""
    return np.asarray(255 - cv2.subtract(over_white, over_black).max(axis=2), np.uint8)


def keep_opacity(over_white: U8, opacity: U8) -> U8:
    """Return (h, w, 4) uint8 BGRA of a picture over white and its (h, w) opacity.

    Where it is fully transparent, it is white.
    """
    bgra: U8 = np.dstack([over_white, opacity])
    soft = (opacity > 0) & (opacity < 255)
    wide = opacity[soft].astype(np.int32)[:, None]
    own = ((over_white[soft].astype(np.int32) - 255 + wide) * 255 + wide // 2) // wide
    bgra[soft, :3] = own.clip(0, 255)
    return bgra
