"""Find the line of the lips in a face by light and colour, in grey pictures too.

Between its corners every edge of a mouth is nearly a parabola. In coordinates that follow those
parabolas the mouth is a stack of level stripes: one column shows lips, teeth and a dark gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import cv2
import numpy as np

from models.arrays import U8, Bool, Floats
from models.preview.face import Face, crop_upright
from models.preview.geometry import Box, Crop, invert_affine, transform_points
from models.preview.landmarks import LIPS, NOSE_BASE, Landmarks, find_tall_lips, fit_lips_from

_CROP = Crop(-75, 55, 150, 165)
_PIXELS_PER_UNIT = 1.5
_APART = 0.45
"""The landmarks' `opening` from which the lips are apart."""
_OPEN = 4.0
_PARTED, _LEAST_PARTING, _MIDDLE = 0.15, 4.0, slice(7, 18)
"""The landmarks' `opening` from which lips that touch in the corners may be apart in the middle, how far they are apart
there at least, in face units, and the columns in the middle."""
_RISES, _TURNS = (16.0, 24.0, 32.0), (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
_REDDER, _MUCH_REDDER, _SAME_SKIN = 8.0, 10.0, 10.0
"""How much farther up lips are searched, in face units, and how they may be turned, where together they are not redder
than the skin beside them; by how much redder those must be, and how much the colour of the skin above and below them
may differ: it does at the edge of a mask."""
_TEETH_LESS_RED, _TEETH_LIGHT, _GREY = 0.1, 0.6, 5.0
_SHADOW, _DIM_TOOTH, _GREY_TOOTH = 0.58, 0.75, 25.0
"""Light of the inside of a mouth against a lip's, at most; that of teeth in shade; how much lighter grey teeth are."""
_BRIDGED = 3
"""Rows between teeth and shadow that may look like a lip."""
_FARTHEST_TOOTH = 8.0
"""How far beyond the edges of the lips teeth are looked for, in face units."""
_TALL, _FARTHER, _LOWER_LIP = 0.6, 10.0, 16.0
"""The gap from which lips are searched farther, in half widths, how much farther the lower one counts, and how high it
is then, in face units."""
GIVEN = 255.0
"""The contrast of a mouth that the job gives."""
_FAINTEST = 3.0
"""Covered mouths and furs had a contrast of at most 2.3, mouths from 3.8, most from 13."""


@dataclass(frozen=True, slots=True)
class Mouth:
    """A mouth in face units (a hundredth of the eye distance; see Face.to_upright).

    x, y          middle between the corners
    half_width    from there to a corner
    tilt          how far the right corner is below the middle
    top, bottom   the lower edge of the upper lip and the upper edge of the lower lip, in the middle, below y;
                  equal where the lips touch
    teeth         whether the photo shows teeth between the lips
    contrast      how much darker the line of the lips is than what is around it, or how much the light changes from lip
                  to lip where they are apart, 0..255
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
        """Whether the mouth stands out; otherwise it isn't drawn: it may be covered."""
        return self.contrast >= _FAINTEST

    def to_array(self) -> Floats:
        return np.array(astuple(self), np.float64)

    @classmethod
    def from_array(cls, values: Floats) -> Mouth:
        x, y, half_width, tilt, top, bottom, teeth, contrast = (float(value) for value in values)
        return cls(x, y, half_width, tilt, top, bottom, bool(teeth), contrast)


def find_mouth(image: U8, face: Face) -> Mouth:
    """Find the mouth of a face in a (h, w, 3) uint8 BGR picture: its corners are landmarks, its
    line is the darkest between them."""
    lab = _crop_lab(image, face)
    landmarks = _raise_lips(image, lab, face)
    turns = _TURNS if landmarks is not face.landmarks else (0.0,)
    face = replace(face, landmarks=landmarks)
    rough = _place_lips(face)
    measured = _measure_mouth(lab, _follow_line(lab, rough, turns), landmarks.opening)
    if rough.gap < _TALL * rough.half_width:
        return measured
    lower_edge = float(transform_points(find_tall_lips(image, face.landmarks.points), face.to_upright)[5, 1])
    if lower_edge < face.upright_points[LIPS][5, 1] + _FARTHER:
        return measured
    bottom = max(rough.bottom, lower_edge - rough.y - _LOWER_LIP)
    return replace(measured, bottom=max(measured.bottom, bottom))


def fit_mouth(image: U8, face: Face, box: Box) -> Mouth:
    """Return the mouth whose width fills a box of x, y, w, h pixels."""
    left, top, w, h = box
    a, b = transform_points([(left, top + h * 0.45), (left + w, top + h * 0.45)], face.to_upright)
    x, y, half_width, tilt = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (b[0] - a[0]) / 2, (b[1] - a[1]) / 2
    placed = replace(_place_lips(face), x=float(x), y=float(y), half_width=float(half_width), tilt=float(tilt))
    return _measure_mouth(_crop_lab(image, face), replace(placed, contrast=GIVEN), face.landmarks.opening)


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


def _place_lips(face: Face) -> Mouth:
    """Return the mouth as the landmarks have it."""
    left, right, _, top, bottom, _ = face.upright_points[LIPS]
    (x, y), (half_width, tilt) = (left + right) / 2, (right - left) / 2
    middle, half_gap = (top[1] + bottom[1]) / 2 - y, max(0.0, bottom[1] - top[1]) / 2
    if face.landmarks.opening < _APART:
        half_gap = 0.0
    edges = float(middle - half_gap), float(middle + half_gap)
    return Mouth(float(x), float(y), float(half_width), float(tilt), *edges, False, 0.0)


def _raise_lips(image: U8, lab: Floats, face: Face) -> Landmarks:
    """Return the landmarks of the face, with lips searched farther up where what they have is a fold of the chin.

    Both lips are redder than the skin beside them, and an extreme frown pulls them up. Grey pictures don't tell.
    """
    seen = face.landmarks
    if (
        seen.is_guess
        or seen.opening >= _APART
        or (redness := _compare_redness(_sample_bands(lab, face)).sum()) >= _REDDER
    ):
        return seen
    down = invert_affine(face.to_upright)[:, 1]
    tried = [replace(face, landmarks=fit_lips_from(image, seen, -rise * down)) for rise in _RISES]
    best = max(tried, key=lambda raised: _compare_redness(_sample_bands(lab, raised)).sum())
    bands = _sample_bands(lab, best)
    is_redder = _compare_redness(bands).min() > 0 and _compare_redness(bands).sum() >= redness + _MUCH_REDDER
    is_bare = np.hypot(*(bands[0] - bands[3])[1:]) < _SAME_SKIN
    is_below_nose = best.upright_points[LIPS][:3, 1].min() > best.upright_points[NOSE_BASE, 1]
    return best.landmarks if is_redder and is_bare and is_below_nose else seen


def _compare_redness(bands: Floats) -> Floats:
    """Return how much redder the upper lip is than the skin just above, and the lower one than that just below."""
    return np.array([bands[1, 1] - bands[0, 1], bands[2, 1] - bands[3, 1]])


def _sample_bands(lab: Floats, face: Face) -> Floats:
    """Return light and colour, (4, 3), of the skin above the lips, the upper lip, the lower one, and the skin below."""
    left, right, upper, top, bottom, lower = face.upright_points[LIPS]
    bands = [
        (upper[1] - 10, upper[1] - 4),
        (0.7 * upper[1] + 0.3 * top[1], 0.2 * upper[1] + 0.8 * top[1]),
        (0.7 * bottom[1] + 0.3 * lower[1], 0.3 * bottom[1] + 0.7 * lower[1]),
        (lower[1] + 6, lower[1] + 14),
    ]
    across = (left[0] + right[0]) / 2 + (right[0] - left[0]) / 2 * np.linspace(-0.5, 0.5, 9)
    grids = [np.meshgrid(across, np.linspace(*band, 5)) for band in bands]
    return np.array([np.median(_sample(lab, x, y), (0, 1)) for x, y in grids])


def _follow_line(lab: Floats, rough: Mouth, turns: Sequence[float] = (0.0,)) -> Mouth:
    """Return the mouth moved up or down, bent, and turned by one of `turns` (what is added to its tilt), to the darkest
    line between its corners; one that is open as it is."""
    if rough.gap >= _OPEN:
        _, columns = _sample_columns(lab, rough, rough.top - 4, rough.bottom + 4)
        return replace(rough, contrast=float(np.ptp(columns.mean(1)[:, 0])))
    light = _blur(lab[..., 0], 0.8)
    column = np.ones((round(20 * _PIXELS_PER_UNIT), 1), np.uint8)
    darkness = cv2.morphologyEx(light, cv2.MORPH_CLOSE, column) - light
    axes = np.meshgrid(np.arange(-4, 4.1, 1.0), np.arange(-5, 5.1, 1.0), turns)
    rise, sag, turn = (axis.ravel() for axis in axes)
    u = np.linspace(-0.9, 0.9, 37)[None]
    middle = (rough.top + rough.bottom) / 2
    down = (
        rough.y
        + rise[:, None]
        + (rough.tilt + turn[:, None]) * u
        + (middle + sag[:, None] - rise[:, None]) * (1 - u**2)
    )
    line = _sample(darkness, (rough.x + rough.half_width * u + 0 * down).astype(np.float32), down.astype(np.float32))
    near = np.exp(-((rise / 4) ** 2) - (sag / 4) ** 2)
    best = int((line.mean(1) * near).argmax())
    moved, bent = float(rise[best]), float(sag[best] - rise[best])
    contrast = float(np.median(line[best]))
    top, bottom, tilt = rough.top + bent, rough.bottom + bent, rough.tilt + float(turn[best])
    return replace(rough, y=rough.y + moved, tilt=tilt, top=top, bottom=bottom, contrast=contrast)


def _measure_mouth(lab: Floats, mouth: Mouth, opening: float) -> Mouth:
    """Measure the edges of the lips near those of `mouth`; `opening` is that of the landmarks."""
    sag, columns = _sample_columns(lab, mouth, -30, 110)
    top, bottom, teeth = _find_lip_edges(sag, columns.mean(1), mouth.top, mouth.bottom)
    is_grey = np.abs(columns[..., 1:] - 128).max() < 1
    if bottom > top and is_grey:  # lips of a grey picture are hard to tell from teeth
        bottom = max(bottom, mouth.bottom)
    elif bottom == top and opening > _PARTED and not is_grey:
        top, bottom = _part_lips(sag, columns[:, _MIDDLE], top)
    elif bottom > top:
        top, bottom = _enclose_opening(sag, columns, top, bottom)
    return replace(mouth, top=top, bottom=bottom, teeth=teeth)


def _sample_columns(lab: Floats, mouth: Mouth, low: float, high: float) -> tuple[Floats, Floats]:
    """Return (n,) places below the line of the mouth from `low` to `high`, and light and colour there, (n, 25, 3)."""
    u, sag = np.linspace(-0.6, 0.6, 25), np.arange(low, high, 0.5)[:, None]
    across, down = mouth.x + mouth.half_width * u + 0 * sag, mouth.y + mouth.tilt * u + sag * (1 - u**2)
    return sag[:, 0], _sample(_blur(lab, 0.7), across.astype(np.float32), down.astype(np.float32))


def _find_lip_edges(sag: Floats, stripes: Floats, rough_top: float, rough_bottom: float) -> tuple[float, float, bool]:
    """Return the edges of upper and lower lip, and whether teeth show."""
    light, red = stripes[:, 0], stripes[:, 1]
    if rough_bottom - rough_top < _OPEN:
        seam = _argmax_between(sag, -light - (sag - rough_top) ** 2, rough_top - 3, rough_bottom + 3)
        return float(sag[seam]), float(sag[seam]), False
    middle = (rough_top + rough_bottom) / 2
    below = (sag > rough_bottom + 22) & (sag < max(70.0, rough_bottom + 32))
    teeth = _show_teeth(stripes, (sag > rough_top + 2) & (sag < rough_bottom - 2), below)
    brighter, redder = np.gradient(light, sag), np.gradient(red, sag)
    edge = (brighter if teeth else -brighter) - 2 * redder
    top = _argmax_between(sag, edge * np.exp(-(((sag - rough_top) / 4) ** 2)), rough_top - 6, middle)
    bottom = _argmax_between(sag, -edge * np.exp(-(((sag - rough_bottom) / 4) ** 2)), middle, rough_bottom + 6)
    return float(sag[top]), float(sag[bottom]), teeth


def _enclose_opening(sag: Floats, columns: Floats, top: float, bottom: float) -> tuple[float, float]:
    """Return the edges moved outward past the teeth and shadows that they leave in most columns.

    What is left there would stay on a lip that moves: single teeth on the lower one, roots on the upper one.
    """
    lip = np.median(columns[(sag > bottom + 4) & (sag < bottom + 10)].reshape(-1, 3), 0)
    upper_light = np.median(columns[(sag > top - 8) & (sag < top - 3), :, 0])
    below = _is_inside(columns, lip)[(sag >= bottom - 1) & (sag <= bottom + _FARTHEST_TOOTH)]
    above = _is_inside(columns, np.array([min(lip[0], upper_light), *lip[1:]]))
    above = above[(sag <= top + 1) & (sag >= top - _FARTHEST_TOOTH)][::-1]
    lower, higher = (float(np.percentile(_measure_run(side), share)) for side, share in ((below, 70), (above, 75)))
    return top + 1 - max(1.0, higher), bottom - 1 + max(1.0, lower)


def _part_lips(sag: Floats, columns: Floats, seam: float) -> tuple[float, float]:
    """Return the edges of lips that are a little apart around their darkest line, which is the place of both where they
    touch."""
    lip = np.median(columns[(sag > seam + 7) & (sag < seam + 13)].reshape(-1, 3), 0)
    upper_light = np.median(columns[(sag > seam - 9) & (sag < seam - 4), :, 0])
    below = _is_inside(columns, lip)[(sag >= seam) & (sag <= seam + _FARTHEST_TOOTH + 1)]
    above = _is_inside(columns, np.array([min(lip[0], upper_light), *lip[1:]]))
    above = above[(sag <= seam) & (sag >= seam - _FARTHEST_TOOTH - 1)][::-1]
    lower, higher = (float(np.percentile(_measure_run(side), share)) for side, share in ((below, 75), (above, 60)))
    return (seam - higher, seam + lower) if lower + higher >= _LEAST_PARTING else (seam, seam)


def _is_inside(columns: Floats, lip: Floats) -> Bool:
    """Whether light and colour (n, columns, 3) are those of teeth or shadow beside a lip with light and colour (3,)."""
    light, red, yellow = lip
    chroma = float(np.hypot(red - 128, yellow - 128))
    bright = columns[..., 0]
    if chroma < _GREY:
        return np.asarray((bright < _SHADOW * light) | (bright > light + _GREY_TOOTH))
    is_tooth = (bright > _DIM_TOOTH * light) & (red - columns[..., 1] > max(4.0, 0.3 * chroma))
    return np.asarray((bright < _SHADOW * light) | is_tooth)


def _measure_run(inside: Bool) -> Floats:
    """Return, for each column of (n, columns), how far what is true reaches from the first rows on, in face units."""
    bridged = inside.copy()
    bridged[:_BRIDGED] |= inside[: _BRIDGED + 1].any(0)
    for rows in range(1, _BRIDGED + 1):
        bridged[rows:] |= inside[:-rows]
    joined = inside & np.logical_and.accumulate(bridged, 0)
    return np.where(joined.any(0), 0.5 * (len(inside) - joined[::-1].argmax(0)), 0.0)


def _show_teeth(stripes: Floats, between: Bool, below: Bool) -> bool:
    """Whether what is between the lips is bright, and less red than the skin below as lips never
    are."""
    skin, inside = np.median(stripes[below], 0), stripes[between]
    if len(inside) < 3:
        return False
    brightest = inside[np.argsort(inside[:, 0])[-max(3, len(inside) // 3) :]].mean(0)
    is_grey = bool(np.hypot(*(skin[1:] - 128)) < _GREY)
    less_red = is_grey or skin[1] - brightest[1] > _TEETH_LESS_RED * np.hypot(*(skin[1:] - 128))
    return bool(less_red and brightest[0] > _TEETH_LIGHT * skin[0])


def _argmax_between(sag: Floats, values: Floats, low: float, high: float) -> int:
    inside = (sag >= low) & (sag <= high)
    return int(np.where(inside, values, -np.inf).argmax())
