"""The displacements of skin around a mouth."""

from __future__ import annotations

import numpy as np

from models.preview.lips import STEP, LipField
from models.preview.mouth import find_mouth
from tests.models.preview.portraits import find_face, portrait


def test_skin_never_folds() -> None:
    """Neighbouring points of the result come from neighbouring points of the photo, in order."""
    face = find_face(portrait())
    field = LipField(find_mouth(portrait(), face), face.jaw)
    for opening in (0.0, 0.5, 1.0):
        for spread in (-1.0, 0.0, 1.0):
            moved = field.compute_displacements(opening, spread)
            across = STEP - np.diff(moved[..., 0], axis=1)
            below = STEP - np.diff(moved[..., 2], axis=0)[round(60 / STEP) :]
            assert across.min() > 0
            assert below.min() > 0


def test_the_lower_lip_keeps_its_thickness() -> None:
    """At full opening the skin of the lower lip is moved as a whole, neither squeezed nor doubled."""
    face = find_face(portrait())
    mouth = find_mouth(portrait(), face)
    field = LipField(mouth, face.jaw)
    column = round((mouth.x - field.crop.left) / STEP)
    rows = field.crop.top + STEP * np.arange(round(field.crop.height / STEP) + 1)
    lip = field.compute_displacements(1.0, 0.0)[:, column, 2]
    source = rows[: len(lip)] - lip
    top, bottom = np.interp([mouth.y + mouth.bottom, mouth.y + mouth.bottom + 11], source, rows[: len(lip)])
    assert bottom - top >= 10.5


def test_the_line_of_the_chin_sinks_as_a_whole() -> None:
    """Half way to the edge of the jaw the chin sinks nearly half as far as in its middle, at the edge by nothing."""
    face = find_face(portrait())
    field = LipField(find_mouth(portrait(), face), face.jaw)
    chin = round((face.upright_points[14, 1] - 4 - field.crop.top) / STEP)
    sinking = field.compute_displacements(1.0, 0.0)[chin, :, 2]
    middle = len(sinking) // 2
    half = round(0.5 * face.jaw / STEP)
    assert sinking[middle] > 10
    assert min(sinking[middle - half], sinking[middle + half]) > 0.4 * sinking[middle]
    assert max(sinking[0], sinking[-1]) < 0.5
