"""Blends an inpainted face into its frame, in integers, rounded as Pillow rounds.

`BgrBlend` is bit-identical to pasting with Pillow over the whole frame, as MuseTalk does.
`YuvBlend` works on the 4:2:0 planes of a video, so that all other pixels stay as they were
decoded. What depends on the source frame alone is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from models.arrays import U8, U16
from models.media import bgr_to_yuv_matrix, split_planes
from models.musetalk.compositing.colour_match import ColourMatch
from models.musetalk.geometry import Box, Size, intersect, shift_box
from models.types import Colour

Integer = TypeVar("Integer", np.uint8, np.uint16)


@dataclass(frozen=True, slots=True)
class BlendStyle:
    """What a blend does beyond pasting; nothing in the reference's way.

    matches_colour   the face takes the tone that the frame has at the edge of the mask
    antialiases      a face that is larger than its box is shrunk without aliases
    """

    matches_colour: bool = False
    antialiases: bool = False


PLAIN = BlendStyle()


class BgrBlend:
    """Blends faces into a BGR frame."""

    def __init__(
        self, mask: U8, box: Box, crop: Box, size: Size, opacity: float = 1, style: BlendStyle = PLAIN
    ) -> None:
        """Compute the weights of one source frame.

        mask      (h, w) uint8: how much of the face shows, 0 to 255
        box       the box that the face fills; may reach beyond the frame
        crop      the box that the mask covers; may reach beyond the frame
        size      of the frame
        opacity   0 to 1, to fade the face in and out
        """
        self.box, self.region = box, find_visible_box(mask, box, crop, size)
        weights = _make_weights(mask, box, crop, self.region, opacity)[..., None].repeat(3, axis=2)
        self._over, self._under, self._style = weights, 255 - weights, style
        self._match = _make_match(_make_weights(mask, box, crop, self.region, 1), style)

    @property
    def nbytes(self) -> int:
        """Bytes that this blend takes."""
        return 2 * self._over.nbytes

    def apply(self, frame: U8, face: U8) -> None:
        """Change the colours of `frame`, (h, w, 3 or 4) uint8, in place.

        `face`, (n, m, 3) uint8 BGR, is scaled to the box.
        """
        part = _view(frame[..., :3], self.region)
        fitted = fit_face(face, self.box, antialias=self._style.antialiases)
        over = _view(fitted, _relative_to(self.region, self.box))
        _blend_into(part, self._match.apply(over, part) if self._match else over, self._over, self._under)


class YuvBlend:
    """Blends faces into the planes of a frame, in whole blocks of 2 x 2 pixels."""

    def __init__(
        self,
        mask: U8,
        box: Box,
        crop: Box,
        size: Size,
        colour: Colour | None = None,
        opacity: float = 1,
        style: BlendStyle = PLAIN,
    ) -> None:
        """Compute the weights of one source frame.

        The arguments are those of BgrBlend; `colour` is the video's.
        """
        x1, y1, x2, y2 = find_visible_box(mask, box, crop, size)
        self.box, self.region = box, (x1 // 2 * 2, y1 // 2 * 2, (x2 + 1) // 2 * 2, (y2 + 1) // 2 * 2)
        self._matrix = bgr_to_yuv_matrix(colour or Colour(), *size)
        fine = _make_weights(mask, box, crop, self.region, opacity)
        coarse = _halve(fine)
        self._luma, self._chroma, self._style = (fine, 255 - fine), (coarse, 255 - coarse), style
        whole = fine if opacity >= 1 else _make_weights(mask, box, crop, self.region, 1)
        self._match, self._coarse_match = _make_match(whole, style), _make_match(_halve(whole), style)

    @property
    def nbytes(self) -> int:
        """Bytes that this blend takes."""
        return 2 * (self._luma[0].nbytes + self._chroma[0].nbytes)

    def apply(self, frame: U8, face: U8) -> None:
        """Change `frame`, (h * 3 / 2, w) uint8, in place.

        `face`, (n, m, 3) uint8 BGR, is scaled to the box.
        """
        if not self._luma[0].size:
            return
        inner = intersect(self.region, self.box)
        part = _view(fit_face(face, self.box, antialias=self._style.antialiases), _relative_to(inner, self.box))
        luma, *chroma = cv2.split(cv2.transform(_extend_edges(part, inner, self.region), self._matrix))
        y, u, v = split_planes(frame)
        _blend_matched(_view(y, self.region), np.asarray(luma, np.uint8), self._luma, self._match)
        x1, y1, x2, y2 = (edge // 2 for edge in self.region)
        for plane, fine in zip((u, v), chroma, strict=True):
            coarse = cv2.resize(fine, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA)
            _blend_matched(plane[y1:y2, x1:x2], np.asarray(coarse, np.uint8), self._chroma, self._coarse_match)


Blend = BgrBlend | YuvBlend


class MaskSource(Protocol):
    """The masks of an avatar's frames; `PreparedAvatar` documents the methods."""

    def read_mask(self, frame: int) -> U8: ...

    def box(self, frame: int) -> Box: ...

    def region(self, frame: int) -> Box: ...


class Compositor:
    """Makes the blends of an avatar's frames: for YUV in `colour`, for BGR if it is None."""

    def __init__(self, avatar: MaskSource, size: Size, colour: Colour | None, style: BlendStyle = PLAIN) -> None:
        self._avatar, self._size, self._colour, self._style = avatar, size, colour, style

    def make_blend(self, source: int, opacity: float = 1.0) -> Blend:
        """Return the blend of the frame with this number. `opacity` is 0 to 1."""
        mask, box, region = self._avatar.read_mask(source), self._avatar.box(source), self._avatar.region(source)
        if self._colour is None:
            return BgrBlend(mask, box, region, self._size, opacity, self._style)
        return YuvBlend(mask, box, region, self._size, self._colour, opacity, self._style)


def find_visible_box(mask: U8, box: Box, crop: Box, size: Size) -> Box:
    """Return the smallest box of all pixels that a blend may change; it may be empty."""
    x1, y1, x2, y2 = intersect(intersect(crop, box), (0, 0, *size))
    part = _view(mask, shift_box((x1, y1, x2, y2), -crop[0], -crop[1]))
    columns, rows = np.flatnonzero(part.any(0)), np.flatnonzero(part.any(1))
    if not len(columns):
        return x1, y1, x1, y1
    return x1 + int(columns[0]), y1 + int(rows[0]), x1 + int(columns[-1]) + 1, y1 + int(rows[-1]) + 1


def trim_mask(mask: U8, box: Box, crop: Box, size: Size) -> tuple[U8, Box]:
    """Return the part of a mask in its visible box, and that box.

    The blend is the same, for a fifth of the memory.
    """
    region = find_visible_box(mask, box, crop, size)
    return _view(mask, shift_box(region, -crop[0], -crop[1])).copy(), region


def fit_face(face: U8, box: Box, *, antialias: bool = False) -> U8:
    """Return the face scaled bilinearly to the size of the box.

    Where it is anti-aliased, axes that shrink are averaged before.
    """
    size = (box[2] - box[0], box[3] - box[1])
    if antialias:
        least = min(face.shape[1], size[0]), min(face.shape[0], size[1])
        face = np.asarray(cv2.resize(face, least, interpolation=cv2.INTER_AREA), np.uint8)
    return face if (face.shape[1], face.shape[0]) == size else np.asarray(cv2.resize(face, size), np.uint8)


def _make_weights(mask: U8, box: Box, crop: Box, region: Box, opacity: float) -> U16:
    """Return the mask over `region`, zero outside the box."""
    inner = intersect(region, intersect(box, crop))
    weights = np.zeros((region[3] - region[1], region[2] - region[0]), np.uint16)
    part = _view(mask, shift_box(inner, -crop[0], -crop[1]))
    _view(weights, _relative_to(inner, region))[:] = part if opacity >= 1 else np.rint(part * max(0.0, opacity))
    return weights


def _halve(weights: U16) -> U16:
    """Return the average of each 2 x 2 pixels."""
    return (weights[::2, ::2] + weights[1::2, ::2] + weights[::2, 1::2] + weights[1::2, 1::2] + 2) // 4


def _make_match(weights: U16, style: BlendStyle) -> ColourMatch | None:
    return ColourMatch(weights) if style.matches_colour and weights.size else None


def _blend_matched(under: U8, over: U8, weights: tuple[U16, U16], match: ColourMatch | None) -> None:
    _blend_into(under, match.apply(over, under) if match else over, *weights)


def _blend_into(under: U8, over: U8, weight: U16, rest: U16) -> None:
    """Blend `over` into `under`.

    Divides by 255 with rounding by shifts alone: no sum exceeds 16 bits.
    """
    sums = over * weight
    sums += under * rest
    sums += 128
    sums += sums >> 8
    sums >>= 8
    under[:] = sums


def _extend_edges(part: U8, inner: Box, outer: Box) -> U8:
    """Return `part` with its edges repeated to fill `outer`, by at most a row or column."""
    if inner == outer:
        return np.ascontiguousarray(part)
    left, top, right, bottom = (abs(a - b) for a, b in zip(inner, outer, strict=True))
    return np.asarray(cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)


def _relative_to(box: Box, frame: Box) -> Box:
    return shift_box(box, -frame[0], -frame[1])


def _view(picture: npt.NDArray[Integer], box: Box) -> npt.NDArray[Integer]:
    x1, y1, x2, y2 = box
    return picture[y1:y2, x1:x2]
