"""The mouth of one portrait under many conditions."""

from __future__ import annotations

import pytest

from models.preview.face import invert_affine, transform_points
from models.preview.mouth import find_mouth, fit_mouth
from tests.models.preview.portraits import CONDITIONS, find_face, portrait


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_mouth_is_found_in_every_condition(condition: str) -> None:
    """Grey, pale, small, dark or tilted by 20 degrees, the mouth is at its place in the original."""
    usual = find_mouth(portrait(), find_face(portrait()))
    image = CONDITIONS[condition](portrait())
    mouth = find_mouth(image, find_face(image))
    assert mouth.is_visible
    assert abs(mouth.x - usual.x) < 6
    assert abs(mouth.y - usual.y) < 6
    assert abs(mouth.half_width - usual.half_width) < 6
    assert mouth.gap > 8, "the portrait smiles: its lips are apart"
    assert mouth.teeth


def test_a_mouth_may_be_given_by_hand() -> None:
    """A box in pixels becomes a mouth of that width, and counts as found."""
    face = find_face(portrait())
    found = find_mouth(portrait(), face)
    back = invert_affine(face.to_upright)
    (x0, y0), (x1, y1) = transform_points([(found.x - 30, found.y - 10), (found.x + 30, found.y + 10)], back)
    mouth = fit_mouth(portrait(), face, (x0, y0, x1 - x0, y1 - y0))
    assert mouth.is_visible
    assert mouth.half_width == pytest.approx(30, abs=3)
    assert mouth.y == pytest.approx(found.y, abs=4)
