"""Where the mouth is in a face and how its lips meet: by their colour, or by their darkness where there is none."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.preview.face import Crop, Face, Image, upright

Floats = npt.NDArray[Any]

SEARCH = Crop(-70, 70, 140, 75)
USUAL_Y, USUAL_HALF_WIDTH = 103.0, 36.0
NARROWEST, WIDEST = 24.0, 54.0
LEAST_CONTRAST = 2.5
OPEN_GAP = 3.0
"""Two lips this far apart, in face units, are an open mouth or a smile that shows teeth."""


@dataclass(frozen=True, slots=True)
class Mouth:
    """A mouth in face units (see face.UNIT), y down.

    x, y          its middle, on the line through the corners
    half_width    from the middle to a corner
    tilt          how much lower the right corner lies than the left one
    upper, lower  how far the lower edge of the upper lip and the upper edge of the lower lip bow below the line
                  through the corners, in the middle
    found         whether it was seen, or is where mouths usually are
    """

    x: float = 0.0
    y: float = USUAL_Y
    half_width: float = USUAL_HALF_WIDTH
    tilt: float = 0.0
    upper: float = 0.0
    lower: float = 0.0
    found: bool = False

    @property
    def gap(self) -> float:
        """How far the lips stand apart in the picture."""
        return max(0.0, self.lower - self.upper)

    def edge(self, u: Floats, bow: float) -> Floats:
        """The y of a lip's edge at u, -1 (left corner) .. 1 (right corner): a parabola through both corners."""
        near = np.clip(u, -1.15, 1.15)
        return np.asarray(self.y + self.tilt / 2 * near + bow * (1 - near**2), np.float32)

    def to_array(self) -> npt.NDArray[Any]:
        return np.array(astuple(self), np.float64)

    @classmethod
    def from_array(cls, values: npt.NDArray[Any]) -> Mouth:
        x, y, half_width, tilt, upper, lower, found = (float(value) for value in values)
        return cls(x, y, half_width, tilt, upper, lower, bool(found))


def find_mouth(image: Image, face: Face) -> Mouth:
    """The mouth of a face in a (h, w, 3) BGR picture; the usual place where it can't be seen."""
    patch = upright(image, face, SEARCH, 1.0)
    lab = cv2.GaussianBlur(cv2.cvtColor(patch, cv2.COLOR_BGR2LAB), (0, 0), 1.2).astype(np.float32)
    light, red = lab[..., 0], lab[..., 1]
    for evidence in (_redder(red), _darker(light)):
        blob = _lips(evidence)
        if blob is not None:
            return _measured(blob, light)
    return Mouth()


def mouth_in_box(box: tuple[float, float, float, float], face: Face) -> Mouth:
    """A closed mouth that fills the box x, y, w, h, in pixels of the picture."""
    x, y, w, h = box
    corners = np.array([[x, y + h / 2, 1], [x + w, y + h / 2, 1]]) @ face.to_upright.T
    (ax, ay), (bx, by) = corners.tolist()
    return Mouth((ax + bx) / 2, (ay + by) / 2, max(NARROWEST, (bx - ax) / 2), by - ay, found=True)


def _where_mouths_are() -> Floats:
    y, x = np.mgrid[: int(SEARCH.height), : int(SEARCH.width)].astype(np.float32)
    x, y = x + SEARCH.left, y + SEARCH.top
    return np.exp(-((np.abs(x) / 50) ** 6) - ((y - USUAL_Y) / 20) ** 4)


def _redder(red: Floats) -> Floats:
    return np.clip(red - float(np.median(red[:, 25:115])), 0, 30) * _where_mouths_are()


def _darker(light: Floats) -> Floats:
    """Darkness against the skin beside it, so that a shadow over half a face is no lip."""
    skin = cv2.GaussianBlur(light, (0, 0), 14)
    return np.clip(np.minimum(skin, float(np.median(light))) - light, 0, 60) * _where_mouths_are() / 2


def _lips(evidence: Floats) -> npt.NDArray[Any] | None:
    """The pixels of both lips, or None where nothing of a mouth's shape stands out."""
    _, mask = cv2.threshold((evidence * 8).astype(np.uint8), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask[evidence < LEAST_CONTRAST] = 0
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((11, 5), np.uint8))
    count, labels, stats, centres = cv2.connectedComponentsWithStats(closed)
    best, strongest = 0, 0.0
    for label in range(1, count):
        _, _, width, height, _ = stats[label]
        if not (40 <= width <= 112 and 6 <= height <= 50):
            continue
        x = centres[label][0] + SEARCH.left
        strength = float(evidence[labels == label].sum()) * float(np.exp(-((x / 25) ** 2)))
        if strength > strongest:
            best, strongest = label, strength
    return (labels == best) & (mask > 0) if best else None


@dataclass(frozen=True, slots=True)
class _Span:
    """The corners of a mouth in pixels of the search patch."""

    left: float
    right: float
    left_y: float
    right_y: float

    def line(self, u: float) -> float:
        return (self.left_y + self.right_y) / 2 + (self.right_y - self.left_y) / 2 * u


def _measured(lips: npt.NDArray[Any], light: Floats) -> Mouth:
    columns = np.flatnonzero(lips.any(0))
    left, right = int(columns[0]), int(columns[-1])
    span = _Span(left, right, _mean_row(lips[:, left : left + 4]), _mean_row(lips[:, right - 3 : right + 1]))
    half_width = float(np.clip((right - left) / 2 + 1, NARROWEST, WIDEST))
    bows = [bow for column in columns if (bow := _bow(lips, light, int(column), span, half_width))]
    upper, lower = (float(np.median([bow[n] for bow in bows])) if bows else 0.0 for n in (0, 1))
    if lower - upper < OPEN_GAP:
        upper = lower = (upper + lower) / 2
    middle = (left + right) / 2 + SEARCH.left
    return Mouth(middle, span.line(0) + SEARCH.top, half_width, span.right_y - span.left_y, upper, lower, True)


def _mean_row(lips: npt.NDArray[Any]) -> float:
    return float(np.mean(np.nonzero(lips.any(1))[0]))


def _bow(
    lips: npt.NDArray[Any], light: Floats, column: int, span: _Span, half_width: float
) -> tuple[float, float] | None:
    """How far both lip edges of one column lie below the line through the corners, as in the middle of the mouth."""
    u = (column - (span.left + span.right) / 2) / half_width
    rows = np.flatnonzero(lips[:, column])
    if abs(u) > 0.7 or len(rows) < 4:
        return None
    steps = np.diff(rows)
    widest = int(steps.argmax())
    if steps[widest] >= 4:  # teeth or darkness between two runs of lip
        top, bottom = rows[widest] + 0.5, rows[widest + 1] - 0.5
    else:
        top = bottom = _darkest(light[rows[1:-1], column], rows[1:-1])
    share = 1 - u**2
    return (top - span.line(u)) / share, (bottom - span.line(u)) / share


def _darkest(light: Floats, rows: npt.NDArray[Any]) -> float:
    weight = np.clip(np.percentile(light, 60) - light, 0, None) ** 2 + 1e-3
    return float((weight * rows).sum() / weight.sum())
