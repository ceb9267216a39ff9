"""The lower face of one frame, laid over all others of a video: the person's own mouth rests."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import U8, Floats
from models.preview.face import Face, crop_upright
from models.preview.geometry import UNIT, Crop, Rect, compute_rect, make_grid, ramp, to_slices, transform_grid
from models.preview.mouth import Mouth

_MOST_PIXELS_PER_UNIT = 4.0
_MOST_GAIN = 40.0
_STRIDE = 3


def choose_scale(face: Face) -> float:
    """Return the pixels per face unit in which a lower face is kept."""
    return min(_MOST_PIXELS_PER_UNIT, max(1.0, face.eye_distance / UNIT))


def make_crop(mouth: Mouth) -> Crop:
    """Return the rectangle from above the lips to the chin."""
    reach = mouth.half_width + 36
    return Crop(mouth.x - reach, mouth.y - 34, 2 * reach, 100)


def cut_lower_face(image: U8, face: Face, mouth: Mouth) -> U8:
    """Return lips to chin of `face` in a (h, w, 3) uint8 picture, upright."""
    return crop_upright(image, face, make_crop(mouth), choose_scale(face))


class LowerFace:
    """Lips to chin of a face, feathered; `pixels` is what `cut_lower_face` returns."""

    def __init__(self, pixels: U8, face: Face, mouth: Mouth) -> None:
        self._pixels, self._scale, self._crop = pixels, choose_scale(face), make_crop(mouth)
        reach = self._crop.width / 2
        h, w = pixels.shape[:2]
        rows, columns = np.mgrid[:h, :w].astype(np.float32)
        x = columns / np.float32(self._scale) + np.float32(self._crop.left - mouth.x)
        y = rows / np.float32(self._scale) + np.float32(self._crop.top - mouth.y)
        down = np.where(y < 8, (y - 8) / 36, (y - 8) / 50)
        radius = np.sqrt((x / (reach - 2)) ** 2 + down**2)
        self._opacity = ramp(radius, 0.98, 0.7)

    def find_rect(self, face: Face, size: tuple[int, int]) -> Rect:
        """Return the pixels that it may change, in a picture of (width, height)."""
        return compute_rect(face.to_upright, self._crop, size)

    def lay(self, frame: U8, face: Face, weight: float) -> None:
        """Lay it over `face` in a frame, in place, in the frame's colours."""
        crop = self._crop
        rect = self.find_rect(face, (frame.shape[1], frame.shape[0]))
        target = frame[to_slices(rect)]
        if not target.size:
            return
        x, y = transform_grid(face.to_upright, *make_grid(rect))
        columns, rows = (
            (x - np.float32(crop.left)) * np.float32(self._scale),
            (y - np.float32(crop.top)) * np.float32(self._scale),
        )
        laid = np.asarray(
            cv2.remap(self._pixels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
        )
        opacity = np.asarray(
            cv2.remap(self._opacity, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32
        )
        matched = laid.astype(np.float32) + _match_colours(laid, target, opacity, x, y)
        share = (opacity * np.float32(weight))[..., None]
        target[:] = np.clip(np.rint(target + share * (matched - target)), 0, 255).astype(np.uint8)


def _match_colours(laid: U8, target: U8, opacity: Floats, x: Floats, y: Floats) -> Floats:
    """Return (h, w, 3) float32 to add to `laid`: the plane that fits the difference best where the
    feather is, which is skin beside and below the lips."""
    at = np.nonzero((opacity > 0.02) & (opacity < 0.75))
    rows, columns = at[0][::_STRIDE], at[1][::_STRIDE]
    if len(rows) < 30:
        return np.zeros((*x.shape, 3), np.float32)
    terms = np.stack([np.ones_like(x), x / 50, (y - 110) / 50], -1)
    chosen = terms[rows, columns]
    difference = target[rows, columns].astype(np.float32) - laid[rows, columns]
    difference = np.clip(difference, -_MOST_GAIN, _MOST_GAIN)
    normal = chosen.T @ chosen + np.diag([1e-3, 0.1, 0.1]).astype(np.float32) * len(chosen)
    plane = np.linalg.solve(normal, chosen.T @ difference)
    return np.asarray(terms @ plane, np.float32)
