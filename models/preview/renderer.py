"""A mouth that moves in a picture of a face.

The lower face is taken out of the picture upright, as a patch in face units; there the lower lip with the chin is moved
down over a dark cavity and under the upper lip with its teeth, the lips are rounded or spread, and the patch goes back.
All fields that don't change from frame to frame are made once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.preview.face import Crop, Image
from models.preview.mouth import Mouth
from models.preview.patch import units

Floats = npt.NDArray[Any]

LOWER_FACE = Crop(-84, 48, 168, 172)
JAW_DROP = 0.5
"""How far the lower lip goes down at full opening, in half widths of the mouth."""
LIP_BAND = 16.0
"""Face units below the lower lip's edge that move as one: the lip itself, which must not get thinner."""
CHIN = 70.0
SPREAD_SHARE, ROUND_SHARE = 0.10, 0.27
"""How much wider a full spread and how much narrower a full rounding makes the mouth."""
PROTRUSION = 0.16
"""How much thicker rounded lips look, because they come forward."""


@dataclass(frozen=True, slots=True)
class Tone:
    """How bright a face is against the usual, and how colourful: 0 is black and white."""

    light: float
    colour: float


def tone_of(patch: Image) -> Tone:
    lab = cv2.cvtColor(patch, cv2.COLOR_BGR2LAB).astype(np.float32)
    chroma = float(np.hypot(lab[..., 1] - 128, lab[..., 2] - 128).mean())
    return Tone(float(np.median(lab[..., 0])) / 170, float(np.clip(chroma / 18, 0, 1)))


class MouthRenderer:
    """Draws one mouth at any opening; `scale` is pixels for a face unit. Patches are those of LOWER_FACE."""

    def __init__(self, mouth: Mouth, scale: float, tone: Tone) -> None:
        self.mouth, self.scale, self.tone = mouth, scale, tone
        height, width = round(LOWER_FACE.height * scale), round(LOWER_FACE.width * scale)
        self.column, self.row = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        self.x, self.y = units(LOWER_FACE, scale)
        self.u = (self.x - np.float32(mouth.x)) / np.float32(mouth.half_width)
        self.upper_edge, self.lower_edge = mouth.edge(self.u, mouth.top), mouth.edge(self.u, mouth.bottom)
        self.lip = np.sqrt(np.clip(1 - (self.u / 1.02) ** 2, 0, 1)).astype(np.float32)
        self.chin = np.exp(-((self.u / 1.5) ** 4)).astype(np.float32)
        self.near = np.exp(-((self.u / 1.75) ** 4)).astype(np.float32)
        self.mask = feather(self.x, self.y)

    def draw(self, patch: Image, opening: float, spread: float) -> Image:
        """The patch with the mouth at `opening` 0 .. 1 and `spread` -1 (rounded) .. 1. (h, w, 3) uint8 BGR."""
        mouth = self.mouth
        drop = np.float32(JAW_DROP * mouth.half_width * opening * (1 - 0.1 * max(0.0, spread)))
        drop -= np.float32(
            0.92 * mouth.gap * (1 - min(1.0, opening * 3.2))
        )  # a mouth that smiles in the photo is closed
        lift = np.float32(-2.2 * opening)
        sideways = self._sideways(spread, float(drop))
        thicker = self._thicker(spread)
        raised = self._raised(lift) + thicker * (self.y < self.lower_edge)
        dropped = self._dropped(drop) + thicker * (self.y >= self.lower_edge)
        upper = self._moved(patch, sideways, raised)
        lower = self._moved(patch, sideways, dropped)
        u = self.u + sideways / np.float32(-mouth.half_width)
        edge = mouth.edge(u, mouth.bottom)
        below = np.clip((self.y - dropped - edge) * self.scale / 1.2 + 0.5, 0, 1)
        above = np.clip((edge - self.y + raised) * self.scale / 1.2 + 0.5, 0, 1)
        inside = np.sqrt(np.clip(1 - (u / 1.02) ** 2, 0, 1))
        height = np.maximum(drop, 0) * inside - lift * inside
        hole = (1 - below) * (1 - above) * np.clip(height / 1.5, 0, 1) * (inside > 0)
        hole = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 0.6 * max(1.0, self.scale / 2))[..., None]
        below = below.astype(np.float32)[..., None]
        drawn = lower * below + upper * (1 - below)
        if drop > 0.5:
            drawn = drawn * (1 - hole) + self._inside(u, edge + lift * inside, height) * hole
        return np.clip(drawn + 0.5, 0, 255).astype(np.uint8)

    def _moved(self, patch: Image, sideways: Floats, down: Floats) -> Floats:
        """The patch with each point moved by these face units."""
        columns, rows = self.column - sideways * self.scale, self.row - down * self.scale
        moved = cv2.remap(
            patch,
            columns.astype(np.float32),
            rows.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return moved.astype(np.float32)

    def _sideways(self, spread: float, drop: float) -> Floats:
        """Away from the middle for spread lips, towards it for rounded ones; strongest at the lips."""
        share = spread * (SPREAD_SHARE if spread > 0 else ROUND_SHARE)
        reach = np.exp(-(((self.y - self.lower_edge - drop / 2) / (26 + abs(drop) / 2)) ** 2))
        pull = share if share > 0 else share / (1 + share)  # so that the corners come to rest 1 + share from the middle
        return (pull * self.mouth.half_width * np.clip(self.u, -1.2, 1.2) * reach * self.near).astype(np.float32)

    def _thicker(self, spread: float) -> Floats:
        """Rounded lips come forward: they look higher, upwards above and downwards below the line where they meet."""
        if spread >= 0:
            return np.zeros_like(self.y)
        away = np.clip((self.y - self.lower_edge) / 12, -1, 1)
        fade = np.exp(-(((self.y - self.lower_edge) / 24) ** 2))
        return (-spread * PROTRUSION * 12 * away * fade * self.lip).astype(np.float32)

    def _raised(self, lift: np.float32) -> Floats:
        over = np.clip(self.upper_edge - self.y, 0, None) / 16
        return (lift * self.lip * np.exp(-(over**2)) * (self.y < self.upper_edge + 14)).astype(np.float32)

    def _dropped(self, drop: np.float32) -> Floats:
        """How far each point has come down: all of it at the lower lip, most at the chin, nothing at the neck."""
        depth = np.clip(self.y - self.lower_edge - drop - LIP_BAND, 0, None) / CHIN
        towards_chin = np.clip(depth / 0.35, 0, 1)
        towards_chin = towards_chin * towards_chin * (3 - 2 * towards_chin)
        across = self.lip * (1 - towards_chin) + self.chin * towards_chin
        upper, lower = 1 - 0.3 * depth / 0.65, 0.7 * np.clip(1 - (depth - 0.65) / 0.75, 0, 1) ** 1.5
        return (drop * across * np.where(depth < 0.65, upper, lower)).astype(np.float32)

    def _inside(self, u: Floats, top: Floats, height: Floats) -> Floats:
        """The cavity, a tongue, and upper teeth where the photo shows none: BGR in the light of the face."""
        depth = np.clip((self.y - top) / np.maximum(height, 1e-3), 0, 1)[..., None]
        colour = self._tinted((34, 26, 58)) * (0.5 + 0.5 * depth)
        tongue = np.exp(-(((self.y - top - height + 1) / np.maximum(0.42 * height, 1)) ** 2) - (u / 0.62) ** 2)
        tongue *= np.clip((height - 9) / 9, 0, 1)
        colour = colour + tongue[..., None] * self._tinted((52, 48, 105))
        if self.mouth.teeth:
            return colour.astype(np.float32)
        length = np.minimum(7.5, 0.5 * height)
        teeth = np.clip((top + length - self.y) * self.scale / 2 + 0.5, 0, 1) * np.clip((0.74 - np.abs(u)) * 6, 0, 1)
        teeth = (teeth * np.clip((height - 3) / 5, 0, 1))[..., None]
        between = 0.09 * np.exp(-(((u * 5.5 - np.round(u * 5.5)) / 0.06) ** 2))
        shade = (0.74 + 0.2 * np.clip((self.y - top) / 7, 0, 1)) * (1 - 0.5 * np.abs(u) ** 2) * (1 - between)
        return (colour * (1 - teeth) + teeth * self._tinted((188, 205, 214)) * shade[..., None]).astype(np.float32)

    def _tinted(self, bgr: tuple[int, int, int]) -> Floats:
        colour = np.array(bgr, np.float32)
        grey = float(colour @ (0.114, 0.587, 0.299))
        return (grey + (colour - grey) * np.float32(self.tone.colour)) * np.float32(self.tone.light)


def feather(x: Floats, y: Floats) -> Floats:
    """(h, w) 1 in the middle of the lower face, soft to 0 at its border."""
    left, top = LOWER_FACE.left, LOWER_FACE.top
    right, bottom = left + LOWER_FACE.width, top + LOWER_FACE.height
    inner = np.minimum.reduce([(x - left) / 18, (right - x) / 18, (y - top) / 14, (bottom - y) / 26])
    inner = np.clip(inner - 0.05, 0, 1)
    return (inner * inner * (3 - 2 * inner)).astype(np.float32)
