"""Where the lips of a face meet, by light and colour, for grey pictures too.

Between its corners every edge of a mouth is nearly a parabola. In coordinates that follow those parabolas (a "lens")
the whole mouth becomes a stack of level stripes: the corners are those for which the stripes are clearest, and
what lies in the stripes (lips, teeth, a dark gap) can be read from one column.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.preview.face import Box, Crop, Face, Image, Point, transform, upright

Floats = npt.NDArray[Any]

_CROP = Crop(-75, 55, 150, 120)
_PIXELS_PER_UNIT = 1.5
_TEETH_ABOVE_SKIN, _TEETH_LESS_RED = 16.0, 5.0

_FAINTEST = 8.0


@dataclass(frozen=True, slots=True)
class Mouth:
    """A mouth in face units (a hundredth of the eye distance; see Face.to_upright).

    x, y          middle between the corners
    half_width    from there to a corner
    tilt          how far the right corner is below the middle
    top, bottom   the lower edge of the upper lip and the upper edge of the lower lip, in the middle, below y;
                  equal where the lips touch
    teeth         whether the photo shows teeth between the lips
    contrast      how much darker the line of the mouth is than what lies around it, 0..255
    """

    x: float
    y: float
    half_width: float
    tilt: float
    top: float
    bottom: float
    teeth: bool
    contrast: float

    @property
    def gap(self) -> float:
        return self.bottom - self.top

    @property
    def found(self) -> bool:
        """Whether the line of the mouth was seen, or only where mouths usually are."""
        return self.contrast >= _FAINTEST

    def edge(self, u: Floats, bow: float) -> Floats:
        """The y of a lip's edge at u, -1 (left corner) .. 1 (right corner): a parabola through both corners."""
        near = np.clip(u, -1.15, 1.15)
        return np.asarray(self.y + self.tilt * near + bow * (1 - near**2), np.float32)

    def to_array(self) -> npt.NDArray[Any]:
        return np.array(astuple(self), np.float64)

    @classmethod
    def from_array(cls, values: npt.NDArray[Any]) -> Mouth:
        x, y, half_width, tilt, top, bottom, teeth, contrast = (float(value) for value in values)
        return cls(x, y, half_width, tilt, top, bottom, bool(teeth), contrast)


def find_mouth(image: Image, face: Face) -> Mouth:
    """The mouth of a face in a (h, w, 3) BGR picture."""
    lab = _lab(image, face)
    x, y, half_width, tilt = _clearest_stripes(lab)
    return _between(lab, *_corners(lab, x, y, half_width, tilt))


def mouth_in_box(image: Image, face: Face, box: Box) -> Mouth:
    """The mouth that fills a box of x, y, w, h pixels."""
    left, top, w, h = box
    a, b = transform([(left, top + h * 0.45), (left + w, top + h * 0.45)], face.to_upright)
    return _between(_lab(image, face), (float(a[0]), float(a[1])), (float(b[0]), float(b[1])), 255.0)


def _lab(image: Image, face: Face) -> Floats:
    return cv2.cvtColor(upright(image, face, _CROP, _PIXELS_PER_UNIT), cv2.COLOR_BGR2LAB).astype(np.float32)


def _sample(picture: Floats, x: Floats, y: Floats) -> Floats:
    """Values at (..., ) face units of x and y."""
    shape = x.shape
    columns = ((x - _CROP.left) * _PIXELS_PER_UNIT).reshape(shape[0], -1).astype(np.float32)
    rows = ((y - _CROP.top) * _PIXELS_PER_UNIT).reshape(shape[0], -1).astype(np.float32)
    values = cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return values.reshape(*shape, *picture.shape[2:])


def _blurred(picture: Floats, units: float) -> Floats:
    return cv2.GaussianBlur(picture, (0, 0), units * _PIXELS_PER_UNIT)


def _clearest_stripes(lab: Floats) -> tuple[float, float, float, float]:
    """x, y, half width and tilt whose stripes have the strongest edges, from a coarse grid and two finer ones."""
    light, red = _blurred(lab[..., 0], 1.0), _blurred(lab[..., 1], 1.2)
    edges = np.stack([cv2.Sobel(light, cv2.CV_32F, 0, 1), 2 * cv2.Sobel(red, cv2.CV_32F, 0, 1)], -1)
    best = _best_of(
        edges, np.arange(-21, 22, 3.0), np.arange(86, 132, 3.0), np.arange(22, 56, 4.0), np.arange(-6, 7, 4.0)
    )
    for step in (1.5, 0.75):
        best = _best_of(edges, *(value + step * np.arange(-1, 2) for value in best))
    return best


def _best_of(edges: Floats, *grid: npt.NDArray[Any]) -> tuple[float, float, float, float]:
    x, y, half_width, tilt = (axis.ravel() for axis in np.meshgrid(*grid, indexing="ij"))
    u, sag = np.linspace(-0.85, 0.85, 21), np.arange(-14, 34, 1.5)[:, None]
    across = x[:, None, None] + half_width[:, None, None] * u + 0 * sag
    down = y[:, None, None] + tilt[:, None, None] * u + sag * (1 - u**2)
    stripes = _sample(edges, across.astype(np.float32), down.astype(np.float32)).mean(2)
    usual = ((x / 18) ** 2) + ((y - 106) / 18) ** 2 + ((half_width - 40) / 20) ** 2 + (tilt / 8) ** 2
    best = int(((stripes**2).sum((1, 2)) * half_width * np.exp(-usual)).argmax())
    return float(x[best]), float(y[best]), float(half_width[best]), float(tilt[best])


def _corners(lab: Floats, x: float, y: float, half_width: float, tilt: float) -> tuple[Point, Point, float]:
    """Where the dark line of the mouth ends on the left and on the right, and how dark it is."""
    light = _blurred(lab[..., 0], 0.8)
    column = np.ones((round(20 * _PIXELS_PER_UNIT), 1), np.uint8)
    darkness = cv2.morphologyEx(light, cv2.MORPH_CLOSE, column) - light
    along, below = np.arange(-1.35, 1.36, 1 / half_width), np.arange(-8, 24, 0.75)[:, None]
    across = x + half_width * along + 0 * below
    found = _sample(darkness, across.astype(np.float32), (y + tilt * along + below).astype(np.float32))
    lens = (below >= -6) & (below <= 6 + 10 * np.clip(1 - along**2, 0, 1))
    found = np.where(lens, found, 0)
    line = cv2.GaussianBlur(found.max(0)[None], (0, 0), 1.0)[0]
    contrast = float(np.median(line[np.abs(along) < 0.8]))
    ends = [_end_of_line(line, along, side, 0.4 * contrast) for side in (-1, 1)]
    depth = below[found.argmax(0), 0]
    left, right = (
        (x + half_width * along[i], y + tilt * along[i] + float(np.median(depth[max(0, i - 2) : i + 3]))) for i in ends
    )
    return left, right, contrast


def _end_of_line(line: Floats, along: npt.NDArray[Any], side: int, threshold: float) -> int:
    i = int(np.abs(along - 0.7 * side).argmin())
    while 0 < i < len(line) - 1 and line[i + side] > threshold:
        i += side
    return i


def _between(lab: Floats, left: Point, right: Point, contrast: float) -> Mouth:
    x, y = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    half_width, tilt = (right[0] - left[0]) / 2, (right[1] - left[1]) / 2
    u, sag = np.linspace(-0.6, 0.6, 25), np.arange(-24, 50, 0.5)[:, None]
    down = y + tilt * u + sag * (1 - u**2)
    stripes = _sample(_blurred(lab, 0.7), (x + half_width * u + 0 * sag).astype(np.float32), down.astype(np.float32))
    top, bottom, teeth = _lips(sag[:, 0], stripes.mean(1))
    return Mouth(float(x), float(y), float(half_width), float(tilt), top, bottom, teeth, contrast)


def _lips(sag: npt.NDArray[Any], stripes: Floats) -> tuple[float, float, bool]:
    """Lower edge of the upper lip, upper edge of the lower lip, teeth or not, from the stripes (sags, Lab)."""
    light, red = stripes[:, 0], stripes[:, 1]
    slope = np.gradient(light, sag)
    seam = _extreme(sag, -light, -16, 13)
    bright = _extreme(sag, light, sag[seam], sag[seam] + 22)
    fall = _extreme(sag, -slope, sag[bright], sag[bright] + 14)
    after = _extreme(sag, -light, sag[fall], sag[fall] + 6)
    skin = max(float(np.median(light[sag > 34])), float(np.median(light[sag < -18])))
    less_red = min(red[seam], red[after]) - red[bright] > _TEETH_LESS_RED
    brighter = light[bright] > skin + _TEETH_ABOVE_SKIN and light[bright] - light[after] > _TEETH_ABOVE_SKIN
    if (less_red or brighter) and sag[fall] - sag[seam] > 4:
        return float(sag[_extreme(sag, slope, sag[seam], sag[bright])]), float(sag[fall]), True
    return _dark_gap(sag, light, seam)


def _dark_gap(sag: npt.NDArray[Any], light: Floats, seam: int) -> tuple[float, float, bool]:
    """The edges of the dark around the seam if it is wide enough to be an open mouth, else the seam twice."""
    around = (np.median(light[(sag > sag[seam] - 16) & (sag < sag[seam])]), np.median(light[sag > sag[seam] + 6]))
    half = (light[seam] + min(around)) / 2
    above, below = seam, seam
    while above > 0 and light[above - 1] < half:
        above -= 1
    while below < len(light) - 1 and light[below + 1] < half:
        below += 1
    if sag[below] - sag[above] < 9 or light[seam] > 0.6 * min(around):
        return float(sag[seam]), float(sag[seam]), False
    return float(sag[above]), float(sag[below]), False


def _extreme(sag: npt.NDArray[Any], values: Floats, low: float, high: float) -> int:
    inside = (sag >= low) & (sag <= high)
    return int(np.where(inside, values, -np.inf).argmax())
