"""Sway and blinks, as maps from pixels of the result to their source in the photo."""

from __future__ import annotations

import math

import cv2
import numpy as np

from models.arrays import F64, U8, Floats
from models.preview.face import Face, crop_upright
from models.preview.geometry import Crop, Maps, Rect, compute_rect, invert_affine, ramp, transform_grid
from models.preview.landmarks import LEFT_EYE, RIGHT_EYE

_COARSE = 8
_CORE = (105.0, 165.0)
_REACH = (185.0, 260.0)
_MIDDLE_Y = 50.0
_LASHES, _HIGHEST, _LOWEST = 3.0, 26.0, 18.0
"""How thick lashes are, and the farthest that the edges of an eye are from the line of its corners, in face units."""
_SHUT = 4.0
_LASH, _LASH_THICK, _LASH_DOWN, _ROUND = 0.8, 1.8, 2.0, 0.15
"""Darkness and thickness of the line of lashes of a shut eye, how far below the lid it is, and how much light catches
the middle of the lid."""
_SKIN_SCALE = 2.0
"""Pixels of a painted lid per face unit."""
_COVERED_BELOW = 5.0
"""How far below the line of the lashes a shut lid covers what is left of the eye, in face units."""
_DARK_SOCKET = 0.7
"""The least light of the skin above an eye against that below it: a brow is darker."""
_GRAIN_FROM, _MOST_GRAIN = 28.0, 10.0
"""How far below the eye the grain of a lid is taken, in face units, and its largest value."""


class HeadField:
    """The part `rect` of a picture of (width, height) pixels that moves with the head, and its
    source.

    Head and neck move as one; the movement fades out around them, so that shoulders and background
    do not move.
    """

    def __init__(self, face: Face, size: tuple[int, int]) -> None:
        reach_x, reach_y = _REACH
        self.rect = compute_rect(face.to_upright, Crop(-reach_x, _MIDDLE_Y - reach_y, 2 * reach_x, 2 * reach_y), size)
        self._nodes = self._make_nodes()
        self._x, self._y = transform_grid(face.to_upright, *self._nodes)
        self._y -= np.float32(_MIDDLE_Y)
        self._weight = ramp(np.abs(self._x), reach_x, _CORE[0]) * ramp(np.abs(self._y), reach_y, _CORE[1])
        self._bulge = np.clip(1 - (self._x / 88) ** 2 - ((self._y + 10) / 125) ** 2, 0, None)
        self._to_pixels = invert_affine(face.to_upright)[:, :2].astype(np.float32)

    def compute_nodes(self, pose: Floats, to_texture: F64) -> Floats:
        """Return (rows, columns, 2) float32, the x and y from which nodes of `rect` come, in a texture.

        `pose` is a row of `make_sway`; `to_texture` (2, 3) leads from pixels of the picture to those of the texture.
        """
        x, y = transform_grid(to_texture, *self._nodes)
        return np.stack([x, y], -1) - self._compute_shifts(pose) @ to_texture[:, :2].T.astype(np.float32)

    def find_sources(self, nodes: Floats, rect: Rect) -> Floats:
        """Return (h, w, 2) float32, the x and y from which each pixel of a part of `rect` comes."""
        half = _COARSE // 2  # cv2.resize puts a node into the middle of its cell
        x0, y0, x1, y1 = (edge - self.rect[number % 2] + half for number, edge in enumerate(rect))
        left, top = max(0, x0 // _COARSE - 1), max(0, y0 // _COARSE - 1)
        part = nodes[top : y1 // _COARSE + 2, left : x1 // _COARSE + 2]
        size = (_COARSE * part.shape[1], _COARSE * part.shape[0])
        full = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), np.float32)
        return full[y0 - _COARSE * top : y1 - _COARSE * top, x0 - _COARSE * left : x1 - _COARSE * left]

    def _make_nodes(self) -> Maps:
        x0, y0, x1, y1 = self.rect
        across, down = np.arange(-(-(x1 - x0) // _COARSE) + 2), np.arange(-(-(y1 - y0) // _COARSE) + 2)
        x, y = np.meshgrid(x0 - 0.5 + _COARSE * across, y0 - 0.5 + _COARSE * down)
        return x.astype(np.float32), y.astype(np.float32)

    def _compute_shifts(self, pose: Floats) -> Floats:
        """Return the shift of the nodes in pixels: nose and brow move the most."""
        roll, x, y, turn, nod = (float(value) for value in pose)
        angle = math.radians(roll)
        dx = (-angle * (self._y - 150) + x + turn * self._bulge) * self._weight
        dy = (angle * self._x + y + nod * self._bulge) * self._weight
        return np.asarray(np.stack([dx, dy], -1) @ self._to_pixels.T, np.float32)


class Lid:
    """The eyelid of one eye of a face in a (h, w, 3) uint8 picture, as its landmarks have it.

    `points` (4, 2): left corner, edge of the upper lid, right corner, edge of the lower lid, in face
    units. What covers the eye is painted in the colours of the skin around it, with the grain of the
    skin below: pulled down, the skin above would take the brow and its shadow along.
    """

    def __init__(self, image: U8, face: Face, points: F64) -> None:
        left, upper, right, lower = points
        self._middle, self._half = (left + right) / 2, max(6.0, float(right[0] - left[0]) / 2)
        self._slope = float(right[1] - left[1]) / 2 / self._half
        self._upper = float(np.clip(upper[1] - self._middle[1], -_HIGHEST, -2))
        self._lower = float(np.clip(lower[1] - self._middle[1], 1, _LOWEST))
        reach, (x, y) = 1.3 * self._half, self._middle.tolist()
        self._crop = Crop(x - reach, y - _HIGHEST - 12, 2 * reach, _HIGHEST + 12 + _LOWEST + 44)
        self._to_upright = face.to_upright
        top, bottom = self._upper - _LASHES - 10, self._lower + 12
        size = (image.shape[1], image.shape[0])
        self.rect = compute_rect(face.to_upright, Crop(x - reach, y + top, 2 * reach, bottom - top), size)
        self._skin = self._paint_skin(crop_upright(image, face, self._crop, _SKIN_SCALE).astype(np.float32))

    def cover(self, part: U8, maps: Maps, shut: float) -> None:
        """Draw the lid, `shut` 0..1, into `part`, the pixels of `rect`, whose sources in the picture are `maps`."""
        if not part.size:
            return
        x, y = transform_grid(self._to_upright, *maps)
        across, below = self._straighten(x, y)
        open_at, shut_at = self._compute_edges(across)
        edge = open_at + shut * (shut_at - open_at)
        beyond = _COVERED_BELOW * max(0.0, 2.5 * shut - 1.5)
        over = ramp(edge + beyond - below, -0.5, 2.5) * ramp(below - open_at, -_LASHES - 5, -1)
        over *= ramp(np.abs(across), 1.28, 1.0)
        skin = cv2.remap(self._skin, *self._locate(x, y), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        drawn = min(1.0, 2 * shut) * np.sqrt(_lens(across))
        light = 1 - _LASH * drawn * np.exp(-(((below - edge - _LASH_DOWN * shut) / _LASH_THICK) ** 2))
        part[:] = np.clip((part + over[..., None] * (skin - part)) * light[..., None], 0, 255).astype(np.uint8)

    def _straighten(self, x: Floats, y: Floats) -> Maps:
        """Return face units as half widths of the eye from its middle, and units below the line of its corners."""
        from_middle = x - np.float32(self._middle[0])
        below = y - np.float32(self._middle[1]) - np.float32(self._slope) * from_middle
        return from_middle / np.float32(self._half), below

    def _compute_edges(self, across: Floats) -> Maps:
        """Return where the upper edge of the eye is when it is open, lashes included, and when it is shut."""
        return self._upper * _lens(across) - _LASHES, self._lower * _lens(across) + 1.5

    def _locate(self, x: Floats, y: Floats) -> Maps:
        """Return the pixels of the lid's crop at x and y in face units."""
        columns, rows = x - np.float32(self._crop.left), y - np.float32(self._crop.top)
        return columns * np.float32(_SKIN_SCALE) - np.float32(0.5), rows * np.float32(_SKIN_SCALE) - np.float32(0.5)

    def _paint_skin(self, area: Floats) -> Floats:
        """Return (h, w, 3) float32 skin for the lid in place of `area`, what the picture shows in the crop."""
        h, w = area.shape[:2]
        rows, columns = (np.mgrid[:h, :w].astype(np.float32) + np.float32(0.5)) / np.float32(_SKIN_SCALE)
        across, below = self._straighten(columns + np.float32(self._crop.left), rows + np.float32(self._crop.top))
        open_at, shut_at = self._compute_edges(across)
        smooth = np.asarray(cv2.GaussianBlur(area, (0, 0), _SKIN_SCALE), np.float32)
        filled = fill_smoothly(smooth, self._weigh_skin(smooth.mean(2), across, below))
        grain = area - cv2.GaussianBlur(area, (0, 0), 3 * _SKIN_SCALE)
        moved = np.roll(grain, -round(_GRAIN_FROM * _SKIN_SCALE), 0)
        down = (below - open_at) / np.maximum(shut_at - open_at, 1)
        filled *= (1 + _ROUND * np.exp(-(((down - 0.5) / 0.35) ** 2)) * (np.abs(across) < 1))[..., None]
        return np.asarray(filled + np.clip(moved, -_MOST_GRAIN, _MOST_GRAIN), np.float32)

    def _weigh_skin(self, light: Floats, across: Floats, below: Floats) -> Floats:
        """Return (h, w) float32 1 where bare skin is around the eye .. 0 in the eye, in lashes, brows and far away."""
        open_at, shut_at = self._compute_edges(across)
        beside = np.abs(across) < 1.28
        above = (below < open_at - 5) & (below > open_at - 13) & beside
        under = (below > shut_at + 4) & (below < shut_at + 14) & beside
        skin = float(np.median(light[under]))
        lid = max(_DARK_SOCKET * skin, float(np.percentile(light[above], 60)))
        usual = np.where(below < 0, np.float32(lid), np.float32(skin))
        return np.asarray((above | under) * ramp(light / np.maximum(usual, 1), 0.6, 0.85), np.float32)


def fill_smoothly(colours: Floats, known: Floats) -> Floats:
    """Return (h, w, 3) float32: what is known of `colours`, weighted by (h, w) `known`, spread smoothly to the rest.

    Averages of ever larger surroundings fill what smaller ones leave unknown.
    """
    h, w = known.shape
    if min(h, w) < 3:
        total = max(float(known.sum()), 1e-6)
        return np.full_like(colours, (colours * known[..., None]).sum((0, 1)) / total)
    size = (-(-w // 2), -(-h // 2))
    weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    mean = cv2.resize(colours * known[..., None], size, interpolation=cv2.INTER_AREA)
    coarse = fill_smoothly(
        np.asarray(mean / np.maximum(weight, 1e-6)[..., None], np.float32), np.minimum(1, 2 * weight).astype(np.float32)
    )
    spread = cv2.GaussianBlur(cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR), (0, 0), 1)
    return np.asarray(spread + known[..., None] * (colours - spread), np.float32)


def make_lids(image: U8, face: Face) -> tuple[Lid, ...]:
    """Return the lids of both eyes; none where they are shut already, or where the eyes are guessed."""
    if face.landmarks.is_guess:
        return ()
    points = face.upright_points
    left, right = points[LEFT_EYE], points[RIGHT_EYE]
    if min(left[3, 1] - left[1, 1], right[3, 1] - right[1, 1]) < _SHUT:
        return ()
    return Lid(image, face, left), Lid(image, face, right)


def _lens(across: Floats) -> Floats:
    return np.clip(1 - np.abs(across) ** np.float32(2.4), 0, 1)
