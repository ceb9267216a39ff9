"""Landmarks of one portrait from eyes that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from models.preview.geometry import transform_points
from models.preview.landmarks import (
    POINTS,
    dequantize,
    find_tall_lips,
    fit_landmarks,
    make_usual_landmarks,
    quantize,
)
from models.preview.mouth import find_mouth
from tests.models.preview.portraits import draw, find_face, make_taller, portrait


@pytest.mark.parametrize("shift", [(-0.15, 0.0), (0.15, 0.1), (0.0, -0.15)])
def test_eyes_that_are_wrong_are_drawn_to_the_face(shift: tuple[float, float]) -> None:
    """From eyes a sixth of their distance away the same landmarks are found."""
    face = find_face(portrait())
    eyes = np.array(face.eyes)
    fitted = fit_landmarks(portrait(), eyes + np.array(shift) * face.eye_distance, rough=True)
    assert fitted.likeness > 0.3
    assert np.abs(fitted.eyes - eyes).max() < 0.06 * face.eye_distance
    assert np.abs(fitted.points - face.landmarks.points)[8:14].max() < 0.1 * face.eye_distance


def test_what_is_no_face_is_not_like_one() -> None:
    """The background beside the head has a likeness below that of faces."""
    eyes = np.array([(40.0, 520.0), (120.0, 520.0)])
    assert fit_landmarks(portrait(), eyes, rough=True).likeness < 0.1


def test_usual_landmarks_are_around_the_eyes() -> None:
    """There are as many as names, upright and closed."""
    usual = make_usual_landmarks(np.array([(100.0, 100.0), (200.0, 100.0)]))
    assert len(usual.points) == len(POINTS)
    assert usual.points[14].tolist() == [150, 282]
    assert usual.opening == 0


def test_tables_survive_their_storage() -> None:
    """Stored in eight bits, a table differs by half a step of each column at most."""
    table = np.random.default_rng(0).normal(0, 1, (21, 4))
    found = dequantize(*quantize(table))
    step = np.abs(table[:-1]).max(0) / 127
    assert (np.abs(found[:-1] - table[:-1]) <= 0.51 * step).all()
    assert np.abs(found[-1] - table[-1]).max() < 1e-6


def test_the_lower_lip_of_a_scream_is_found() -> None:
    """A mouth far taller than those of the tables is looked at in a lower picture; the mouth reaches to that lip."""
    wide = draw(portrait(), 1.0)
    lip = find_face(wide).landmarks.points[13]
    face = find_face(portrait())
    seam = find_mouth(portrait(), face)
    top = face.eyes[0][1] + (seam.y + seam.top - 2) * face.eye_distance / 100
    image = make_taller(wide, top, 2.4)
    scream = find_face(image)
    wanted = top + 2.4 * (lip[1] - top)
    tall = find_tall_lips(image, scream.landmarks.points)
    assert abs(scream.landmarks.points[13, 1] - wanted) > 0.2 * scream.eye_distance, "the landmarks alone miss it"
    assert abs(tall[5, 1] - wanted) < 0.14 * scream.eye_distance
    mouth = find_mouth(image, scream)
    lower_edge = transform_points(tall[5:], scream.to_upright)[0, 1]
    assert mouth.y + mouth.bottom >= lower_edge - 16.1
