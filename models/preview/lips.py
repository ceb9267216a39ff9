"""The movement of skin with lips and jaw: a field of displacements over the lower face.

Two layers move against each other and part along the line of the mouth: the upper lip with
everything above it, and the lower lip with chin and jaw. Both map a point of the result to its
source, in face units.
"""

from __future__ import annotations

import numpy as np

from models.arrays import Floats
from models.preview.geometry import Crop, ramp
from models.preview.mouth import Mouth

STEP = 1.5
"""Distance of the field's nodes in face units."""

WIDEST_OPENING = 24.5
"""Distance of the lips at full opening, in face units; about 14 mm."""

WIDEST_CLOSED, _CLOSED, _STEEP = 48.0, 30.0, 2.5
"""The widest gap of a photo that closes, in face units, and by how much a far wider one does: a scream stays open, as a
chin that is pushed up by so much looks like none."""

_LIP = 11.0
_TO_CHIN = 46.0
_CHEEK = 34.0
_CHEEK_ROOM, _FOLD_HEIGHT = 46.0, (30.0, 48.0)
"""How far beside, above and below a corner of the mouth skin moves with it sideways, in face units."""
_NARROWED, _USUAL_HALF_WIDTH = 0.24, 45.0
"""The share by which lips narrow for an "oo", less where they are wider than usual: in a smile."""
_OUTLINE_ERROR, _TURNED_ERROR, _ENOUGH_ROOM = 4.0, 0.6, 32.0
"""How far within the landmarks of the jaw a face may end, how much farther for each unit by which its halves differ in
a turned head, and how much skin the corners need beside them."""
_LOWERED, _FREE_ARCH = 0.5, 4.0
_CREVICE = 0.03
_REACH, _NARROWEST_JAW, _WIDEST_JAW = 82.0, 68.0, 92.0


class LipField:
    """Displacements around one mouth. They are zero outside `crop`.

    `outline` is x of the left and the right edge of the face at the height of the mouth, in face units: the
    whole line of the chin sinks between them, and the corners of the mouth draw no skin from beyond.
    """

    def __init__(self, mouth: Mouth, outline: tuple[float, float]) -> None:
        self.mouth = mouth
        jaw = min(max((outline[1] - outline[0]) / 2, _NARROWEST_JAW), _WIDEST_JAW)
        self.widest = max(WIDEST_OPENING, min(mouth.gap + 8.0, 30.0))
        self._resting = compute_resting_gap(mouth)
        reach = max(_REACH, jaw)
        self.crop = Crop(mouth.x - reach, mouth.y - 46, 2 * reach, 166 + self._resting)
        rows, columns = np.mgrid[0 : self.crop.height : STEP, 0 : self.crop.width : STEP].astype(np.float32)
        self._x, self._y = columns + np.float32(self.crop.left), rows + np.float32(self.crop.top)
        self._across = (self._x - mouth.x) / mouth.half_width
        beyond = ramp(np.abs(self._x - mouth.x), mouth.half_width, mouth.half_width + _CHEEK)
        self._around = np.exp(-((self._y - mouth.y - 4) ** 2) / 26**2) * (1 - beyond)
        self._sideways = np.clip(self._across, -1, 1) * mouth.half_width * self._fade_to_cheeks(outline)
        aside = np.abs(self._x - mouth.x)
        self._jaw = np.exp(-((aside / (0.72 * jaw)) ** 3)) * ramp(aside, reach, reach - 25)
        self._mixing = 0.45 + 0.5 * np.minimum(self._across**2, 1.5)

    def _fade_to_cheeks(self, outline: tuple[float, float]) -> Floats:
        """Return the share of the movement of the corners that skin around them takes.

        It fades slowly, so that the folds beside a smile bend little, and before the outline of the face.
        """
        edges = np.array([self.mouth.x - outline[0], outline[1] - self.mouth.x])
        turned = _OUTLINE_ERROR + _TURNED_ERROR * abs(edges[0] - edges[1])
        room = np.clip(edges - turned - self.mouth.half_width, 1, _CHEEK_ROOM)
        is_left, shares = self._x < self.mouth.x, np.minimum(1, room / _ENOUGH_ROOM)
        free, share = (np.where(is_left, left, right).astype(np.float32) for left, right in (room, shares))
        aside = (np.abs(self._x - self.mouth.x) - np.float32(self.mouth.half_width)) / free
        down = self._y - np.float32(self.mouth.y + 4)
        height = np.where(down < 0, _FOLD_HEIGHT[0], _FOLD_HEIGHT[1]).astype(np.float32)
        mixed = ramp(np.abs(self._x - self.mouth.x), 0, 0.5 * self.mouth.half_width)
        share = share * mixed + np.float32(shares.mean()) * (1 - mixed)
        return np.asarray(share * (1 - ramp(aside, 0, 1)) * np.exp(-((down / height) ** 2)))

    def compute_aperture(self, opening: float) -> float:
        """Return the distance of the lips in face units. Shut lips keep a trace of a smile."""
        return self._resting + self.widest * opening + _CREVICE * self.mouth.gap * (1 - opening)

    def compute_displacements(self, opening: float, spread: float) -> Floats:
        """Return (rows, columns, 3) float32, to be subtracted from a point to get its source.

        The channels are x of both layers, y of the upper layer, y of the lower layer.
        """
        narrowed = self._compute_narrowing(opening, spread)
        dx = -self._sideways * (narrowed / (1 - narrowed))
        source = (self._x - dx - self.mouth.x) / self.mouth.half_width
        level = self.mouth.y + self.mouth.tilt * source
        rounded = max(0.0, -spread)
        lens = _lens(source)
        arch = lens ** ((1.1 if self.mouth.teeth else 0.85) + 0.7 * rounded)
        relaxed = self._relax_corners(opening, spread, source)
        upper = relaxed + self._shift_upper_lip(level + self.mouth.top * lens, lens, arch, opening, rounded)
        lower = relaxed + self._shift_lower_lip(level + self.mouth.bottom * lens, lens, arch, opening, rounded)
        return np.stack([dx, upper, lower], -1).astype(np.float32)

    def _compute_narrowing(self, opening: float, spread: float) -> float:
        rounded = _NARROWED * min(1.0, (_USUAL_HALF_WIDTH / self.mouth.half_width) ** 2) * max(0.0, -spread)
        return rounded + (0.07 if self.mouth.teeth else 0.10) * opening - 0.04 * max(0.0, spread)

    def _relax_corners(self, opening: float, spread: float, source: Floats) -> Floats:
        """Return how far the corners of a smile come down when the lips round or open wide."""
        smile = max(0.0, self.mouth.top) * (0.5 * max(0.0, -spread) + 0.25 * opening)
        return smile * np.minimum(source**2, 1) * self._around

    def _shift_upper_lip(self, edge: Floats, lens: Floats, arch: Floats, opening: float, rounded: float) -> Floats:
        lowered = self._lower_upper_lip(opening) * lens
        above = np.maximum(edge + lowered - self._y, 0)
        raised = (-1.2 if self.mouth.teeth else -2.4) * opening * arch * np.exp(-((above / 15) ** 2))
        fuller = 0.20 * rounded / (1 + 0.20 * rounded)
        raised = raised + lowered * np.exp(-((above / 20) ** 2))
        return raised - above * fuller * np.exp(-((above / 11) ** 2)) * arch

    def _lower_upper_lip(self, opening: float) -> float:
        """Return how far the middle of the upper lip comes down when a mouth closes that the photo shows wide open."""
        may_close = self.mouth.gap > 0 and not self._resting
        return _LOWERED * max(0.0, -self.mouth.top - _FREE_ARCH) * (1 - opening) if may_close else 0.0

    def _shift_lower_lip(self, edge: Floats, lens: Floats, arch: Floats, opening: float, rounded: float) -> Floats:
        apart = self.widest * opening
        closed = self.mouth.gap - self._resting
        shut = closed - _CREVICE * self.mouth.gap * (1 - opening) - self._lower_upper_lip(opening)
        below = self._y - edge - apart * arch + shut * lens
        skin_below = np.maximum(below - _LIP, 0)
        skin = skin_below / _TO_CHIN
        mixed = ramp(skin / self._mixing, 0, 1)
        sunk = np.maximum(below - _LIP - apart * np.maximum(self._jaw - arch, 0), 0) / _TO_CHIN
        sinking = apart * (arch * (1 - mixed) + self._jaw * mixed) * _fade_jaw(sunk)
        reach = max(20.0, 1.2 * closed)
        rising = shut * lens * np.exp(-((skin_below / reach) ** 2))
        depth = np.maximum(below, 0)
        fuller = (0.22 * rounded + 0.10 * opening) / (1 + 0.22 * rounded + 0.10 * opening)
        return sinking - rising + depth * fuller * np.exp(-((depth / 12) ** 2)) * arch


def compute_resting_gap(mouth: Mouth) -> float:
    """Return the distance that the lips keep in silence, in face units: 0 where they can touch."""
    return max(0.0, min(_STEEP * (mouth.gap - WIDEST_CLOSED), mouth.gap - _CLOSED))


def _lens(across: Floats) -> Floats:
    return np.maximum(1 - across**2, 0)


def _fade_jaw(skin: Floats) -> Floats:
    """Return the skin's share of the jaw's movement: 1 at the lip, 0.78 at the chin."""
    return (1 - 0.22 * np.clip(skin, 0, 1)) * (1 - ramp(skin, 0.85, 1.8))
