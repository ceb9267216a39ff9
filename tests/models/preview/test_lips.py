"""The displacements of skin around a mouth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.preview.lips import STEP, LipField
from models.preview.mouth import find_mouth
from tests.models.preview.portraits import find_face, portrait


def test_skin_never_folds() -> None:
    """Neighbouring points of the result come from neighbouring points of the photo, in order."""
    face = find_face(portrait())
    field = LipField(find_mouth(portrait(), face), face.outline)
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
    field = LipField(mouth, face.outline)
    column = round((mouth.x - field.crop.left) / STEP)
    rows = field.crop.top + STEP * np.arange(round(field.crop.height / STEP) + 1)
    lip = field.compute_displacements(1.0, 0.0)[:, column, 2]
    source = rows[: len(lip)] - lip
    top, bottom = np.interp([mouth.y + mouth.bottom, mouth.y + mouth.bottom + 11], source, rows[: len(lip)])
    assert bottom - top >= 10.5


@pytest.mark.parametrize("half_width", [62.0, 75.0, 90.0])
def test_the_line_of_the_chin_sinks_as_a_whole(half_width: float) -> None:
    """In slim and broad faces the chin sinks half way to the edge of the jaw nearly half as far as in its middle; what
    is well beyond the edge stays."""
    face = find_face(portrait())
    mouth = find_mouth(portrait(), face)
    field = LipField(mouth, (mouth.x - half_width, mouth.x + half_width))
    chin = round((face.upright_points[14, 1] - 4 - field.crop.top) / STEP)
    sinking = field.compute_displacements(1.0, 0.0)[chin, :, 2]
    middle = len(sinking) // 2
    half, beyond = round(0.5 * half_width / STEP), round(1.3 * half_width / STEP)
    assert sinking[middle] > 10
    assert min(sinking[middle - half], sinking[middle + half]) > 0.4 * sinking[middle]
    assert max(sinking[: max(1, middle - beyond)].max(), sinking[middle + beyond :].max(initial=0.0)) < 0.5


def test_lips_that_round_leave_the_outline_of_a_turned_head() -> None:
    """Where the edge of the face is near a corner of the mouth, what is beyond it stays; the other side moves."""
    face = find_face(portrait())
    mouth = find_mouth(portrait(), face)
    near = mouth.x - mouth.half_width - 30
    field = LipField(mouth, (near, mouth.x + 110))
    moved = np.abs(field.compute_displacements(0.4, -1.0)[..., 0]).max(0)
    x = field.crop.left + STEP * np.arange(len(moved))
    assert moved[x < near].max() < 0.1
    assert moved[x > mouth.x].max() > 6


def test_folds_beside_a_smile_bend_little() -> None:
    """For an "oo", skin beside a wide mouth moves at most a fifth more or less than that one unit below."""
    face = find_face(portrait())
    mouth = replace(find_mouth(portrait(), face), half_width=58.0)
    sideways = LipField(mouth, face.outline).compute_displacements(0.4, -1.0)[..., 0]
    columns = round((mouth.half_width + 12) / STEP)
    middle = round((mouth.x - LipField(mouth, face.outline).crop.left) / STEP)
    beside = sideways[:, [middle - columns, middle + columns]]
    assert np.abs(np.diff(beside, axis=0)).max() / STEP < 0.2


def test_a_wide_open_mouth_closes_with_both_lips() -> None:
    """The upper lip of a mouth that stands wide open comes down, and the lower one meets it."""
    face = find_face(portrait())
    mouth = replace(find_mouth(portrait(), face), top=-16.0, bottom=22.0)
    field = LipField(mouth, face.outline)
    shut = field.compute_displacements(0.0, 0.0)
    column, rows = round((mouth.x - field.crop.left) / STEP), field.crop.top + STEP * np.arange(shut.shape[0])
    upper, lower = (rows - shut[:, column, layer] for layer in (1, 2))
    edges = [np.interp(edge + mouth.y, source, rows) for edge, source in ((mouth.top, upper), (mouth.bottom, lower))]
    assert edges[0] > mouth.y + mouth.top + 4
    assert edges[1] == pytest.approx(edges[0], abs=2.5)


def test_a_scream_stays_open() -> None:
    """Lips up to 48 units apart touch in silence; those farther apart come together by 30 and fold no skin."""
    face = find_face(portrait())
    found = replace(find_mouth(portrait(), face), teeth=False, top=-10.0)
    for gap, resting in ((20.0, 0.0), (46.0, 0.0), (50.0, 5.0), (70.0, 40.0)):
        field = LipField(replace(found, bottom=gap - 10), face.outline)
        shut = field.compute_aperture(0.0)
        assert resting <= shut < resting + 0.04 * gap
        assert field.compute_aperture(1.0) >= min(gap, resting + 24)
        moved = field.compute_displacements(0.0, 0.0)
        middle = moved[:, round((found.x - field.crop.left) / STEP), 2]
        assert -middle.min() <= max(gap - resting, 0) + 0.1
        assert (STEP - np.diff(moved[..., 2], axis=0)[round(60 / STEP) :]).min() > 0
        assert np.abs(moved[-1, :, 2]).max() < 1.5
