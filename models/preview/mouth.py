"""Find the line of the lips in a face by light and colour, in grey pictures too.

Between its corners every edge of a mouth is nearly a parabola. In coordinates that follow those
parabolas the mouth is a stack of level stripes: the best corners give the clearest stripes, and
one column shows lips, teeth and a dark gap.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import cv2
import numpy as np

from models.arrays import U8, Floats
from models.preview.face import Box, Crop, Face, Point, crop_upright, transform_points

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
        """The distance of the lips in their middle, in face units."""
        return self.bottom - self.top

    @property
    def is_visible(self) -> bool:
        """Whether the line of the mouth was detected; otherwise its usual place is used."""
        return self.contrast >= _FAINTEST

    def to_array(self) -> Floats:
        return np.array(astuple(self), np.float64)

    @classmethod
    def from_array(cls, values: Floats) -> Mouth:
        x, y, half_width, tilt, top, bottom, teeth, contrast = (float(value) for value in values)
        return cls(x, y, half_width, tilt, top, bottom, bool(teeth), contrast)


def find_mouth(image: U8, face: Face) -> Mouth:
    """Find the mouth of a face in a (h, w, 3) uint8 BGR picture."""
    lab = _crop_lab(image, face)
    x, y, half_width, tilt = _find_stripes(lab)
    return _measure_mouth(lab, *_find_corners(lab, x, y, half_width, tilt))


def fit_mouth(image: U8, face: Face, box: Box) -> Mouth:
    """Return the mouth whose width fills a box of x, y, w, h pixels."""
    left, top, w, h = box
    a, b = transform_points([(left, top + h * 0.45), (left + w, top + h * 0.45)], face.to_upright)
    return _measure_mouth(_crop_lab(image, face), (float(a[0]), float(a[1])), (float(b[0]), float(b[1])), 255.0)


def _crop_lab(image: U8, face: Face) -> Floats:
    return cv2.cvtColor(crop_upright(image, face, _CROP, _PIXELS_PER_UNIT), cv2.COLOR_BGR2LAB).astype(np.float32)


def _sample(picture: Floats, x: Floats, y: Floats) -> Floats:
    """Return the values of a crop at x and y in face units."""
    shape = x.shape
    columns = ((x - _CROP.left) * _PIXELS_PER_UNIT).reshape(shape[0], -1).astype(np.float32)
    rows = ((y - _CROP.top) * _PIXELS_PER_UNIT).reshape(shape[0], -1).astype(np.float32)
    values = cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values.reshape(*shape, *picture.shape[2:]), np.float32)


def _blur(picture: Floats, units: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), units * _PIXELS_PER_UNIT), np.float32)


def _find_stripes(lab: Floats) -> tuple[float, float, float, float]:
    """Return x, y, half width and tilt with the clearest stripes, by three grids."""
    light, red = _blur(lab[..., 0], 1.0), _blur(lab[..., 1], 1.2)
    slopes = [cv2.Sobel(light, cv2.CV_32F, 0, 1), 2 * cv2.Sobel(red, cv2.CV_32F, 0, 1)]
    edges = np.asarray(np.stack(slopes, -1), np.float32)
    best = _search_grid(
        edges, np.arange(-21, 22, 3.0), np.arange(86, 132, 3.0), np.arange(22, 56, 4.0), np.arange(-6, 7, 4.0)
    )
    for step in (1.5, 0.75):
        best = _search_grid(edges, *(value + step * np.arange(-1, 2) for value in best))
    return best


def _search_grid(edges: Floats, *grid: Floats) -> tuple[float, float, float, float]:
    x, y, half_width, tilt = (axis.ravel() for axis in np.meshgrid(*grid, indexing="ij"))
    u, sag = np.linspace(-0.85, 0.85, 21), np.arange(-14, 34, 1.5)[:, None]
    across = x[:, None, None] + half_width[:, None, None] * u + 0 * sag
    down = y[:, None, None] + tilt[:, None, None] * u + sag * (1 - u**2)
    stripes = _sample(edges, across.astype(np.float32), down.astype(np.float32)).mean(2)
    usual = ((x / 18) ** 2) + ((y - 106) / 18) ** 2 + ((half_width - 40) / 20) ** 2 + (tilt / 8) ** 2
    best = int(((stripes**2).sum((1, 2)) * half_width * np.exp(-usual)).argmax())
    return float(x[best]), float(y[best]), float(half_width[best]), float(tilt[best])


def _find_corners(lab: Floats, x: float, y: float, half_width: float, tilt: float) -> tuple[Point, Point, float]:
    """Return the left and the right end of the mouth's dark line, and its contrast."""
    light = _blur(lab[..., 0], 0.8)
    column = np.ones((round(20 * _PIXELS_PER_UNIT), 1), np.uint8)
    darkness = cv2.morphologyEx(light, cv2.MORPH_CLOSE, column) - light
    along, below = np.arange(-1.35, 1.36, 1 / half_width), np.arange(-8, 24, 0.75)[:, None]
    across = x + half_width * along + 0 * below
    found = _sample(darkness, across.astype(np.float32), (y + tilt * along + below).astype(np.float32))
    lens = (below >= -6) & (below <= 6 + 10 * np.clip(1 - along**2, 0, 1))
    found = np.where(lens, found, 0)
    line = cv2.GaussianBlur(found.max(0)[None], (0, 0), 1.0)[0]
    contrast = float(np.median(line[np.abs(along) < 0.8]))
    ends = [_find_line_end(line, along, side, 0.4 * contrast) for side in (-1, 1)]
    depth = below[found.argmax(0), 0]
    left, right = (
        (x + half_width * along[i], y + tilt * along[i] + float(np.median(depth[max(0, i - 2) : i + 3]))) for i in ends
    )
    return left, right, contrast


def _find_line_end(line: Floats, along: Floats, side: int, threshold: float) -> int:
    i = int(np.abs(along - 0.7 * side).argmin())
    while 0 < i < len(line) - 1 and line[i + side] > threshold:
        i += side
    return i


def _measure_mouth(lab: Floats, left: Point, right: Point, contrast: float) -> Mouth:
    x, y = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    half_width, tilt = (right[0] - left[0]) / 2, (right[1] - left[1]) / 2
    u, sag = np.linspace(-0.6, 0.6, 25), np.arange(-24, 50, 0.5)[:, None]
    down = y + tilt * u + sag * (1 - u**2)
    stripes = _sample(_blur(lab, 0.7), (x + half_width * u + 0 * sag).astype(np.float32), down.astype(np.float32))
    top, bottom, teeth = _find_lip_edges(sag[:, 0], stripes.mean(1))
    return Mouth(float(x), float(y), float(half_width), float(tilt), top, bottom, teeth, contrast)


def _find_lip_edges(sag: Floats, stripes: Floats) -> tuple[float, float, bool]:
    """Return the edges of upper and lower lip, and whether teeth show."""
    light, red = stripes[:, 0], stripes[:, 1]
    slope = np.gradient(light, sag)
    seam = _argmax_between(sag, -light, -16, 13)
    bright = _argmax_between(sag, light, sag[seam], sag[seam] + 22)
    fall = _argmax_between(sag, -slope, sag[bright], sag[bright] + 14)
    after = _argmax_between(sag, -light, sag[fall], sag[fall] + 6)
    skin = max(float(np.median(light[sag > 34])), float(np.median(light[sag < -18])))
    less_red = min(red[seam], red[after]) - red[bright] > _TEETH_LESS_RED
    brighter = light[bright] > skin + _TEETH_ABOVE_SKIN and light[bright] - light[after] > _TEETH_ABOVE_SKIN
    if (less_red or brighter) and sag[fall] - sag[seam] > 4:
        return float(sag[_argmax_between(sag, slope, sag[seam], sag[bright])]), float(sag[fall]), True
    return _find_dark_gap(sag, light, seam)


def _find_dark_gap(sag: Floats, light: Floats, seam: int) -> tuple[float, float, bool]:
    """Return the edges of a gap as wide as an open mouth, else the seam twice; and False."""
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


def _argmax_between(sag: Floats, values: Floats, low: float, high: float) -> int:
    inside = (sag >= low) & (sag <= high)
    return int(np.where(inside, values, -np.inf).argmax())
