"""The mouth of one portrait under many conditions."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from models.preview.geometry import invert_affine, transform_points
from models.preview.interior import measure_tone
from models.preview.landmarks import LIPS, fit_landmarks
from models.preview.mouth import find_mouth, fit_mouth
from models.preview.renderer import Portrait
from tests.models.preview.portraits import CONDITIONS, draw, find_face, portrait


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


def test_light_lips_are_no_teeth() -> None:
    """Lips that are brighter than the skin around them are red still: a closed mouth shows no teeth."""
    closed = draw(portrait(), 0.0)
    face = find_face(closed)
    mouth = find_mouth(closed, face)
    back = invert_affine(face.to_upright)
    corners = transform_points([(mouth.x - 50, mouth.y - 14), (mouth.x + 50, mouth.y + 34)], back).round().astype(int)
    area = np.s_[corners[:, 1].min() : corners[:, 1].max(), corners[:, 0].min() : corners[:, 0].max()]
    lab = cv2.cvtColor(closed, cv2.COLOR_BGR2LAB).astype(np.float32)
    redness = lab[area][..., 1] - np.median(lab[area][..., 1])
    lab[area][..., 0] += 45 * cv2.GaussianBlur(np.clip(redness / 6, 0, 1), (0, 0), 1.5)
    light = np.asarray(cv2.cvtColor(np.clip(lab, 0, 255).astype(np.uint8), cv2.COLOR_LAB2BGR), np.uint8)
    found = find_mouth(light, find_face(light))
    assert not mouth.teeth
    assert not found.teeth
    assert abs(found.y + found.top - mouth.y - mouth.top) < 8


def test_the_lips_of_a_wide_open_mouth_are_found() -> None:
    """The inner edges of both lips are measured where the mouth stands open."""
    image = draw(portrait(), 0.9)
    mouth = find_mouth(image, find_face(image))
    assert 14 < mouth.gap < 36


@pytest.mark.parametrize("top", [62, 84])
def test_a_covered_mouth_is_not_painted(top: float) -> None:
    """Behind a mask no mouth is seen, none at its upper edge either, and only lids and head move."""
    image = portrait().copy()
    bare = find_face(image)
    corners = transform_points([(-62, top), (62, top), (55, 180), (-55, 180)], invert_affine(bare.to_upright))
    cv2.fillConvexPoly(image, corners.round().astype(np.int32), (205, 200, 190))
    face = replace(bare, landmarks=fit_landmarks(image, np.array(bare.eyes)))
    mouth = find_mouth(image, face)
    assert not mouth.is_visible
    frame = Portrait(image, face, mouth, measure_tone(image, face)).render((1.0, 0.0), 0.0, None)
    assert np.abs(frame.astype(int) - image).max() <= 3


def test_teeth_in_shadow_are_an_open_mouth() -> None:
    """Teeth at half their light are still between lips that are apart."""
    image = portrait().copy()
    face = find_face(image)
    usual = find_mouth(image, face)
    corners = [(-34, usual.top + 1), (34, usual.top + 1), (26, usual.bottom - 2), (-26, usual.bottom - 2)]
    inside = transform_points([(usual.x + x, usual.y + y) for x, y in corners], invert_affine(face.to_upright))
    shadow = np.zeros(image.shape[:2], np.float32)
    cv2.fillConvexPoly(shadow, inside.round().astype(np.int32), 0.5)
    image = (image * (1 - cv2.GaussianBlur(shadow, (0, 0), 1.5))[..., None]).astype(np.uint8)
    found = find_mouth(image, find_face(image))
    assert found.is_visible
    assert abs(found.top - usual.top) < 5
    assert found.gap > 7


def test_shadow_between_teeth_and_lip_is_inside_the_mouth() -> None:
    """Where teeth end above the lower lip, the mouth reaches to the lip: no shadow stays on it when it closes."""
    image = portrait().copy()
    face = find_face(image)
    usual = find_mouth(image, face)
    u = np.linspace(-0.9, 0.9, 19)
    edges = [
        [(usual.x + usual.half_width * a, usual.y + usual.tilt * a + (usual.bottom + down) * (1 - a**2)) for a in u]
        for down in (-6, 2)
    ]
    band = transform_points(edges[0] + edges[1][::-1], invert_affine(face.to_upright)).round().astype(np.int32)
    cv2.fillPoly(image, [band], (22, 16, 34))
    mouth = find_mouth(image, face)
    assert usual.bottom < mouth.bottom < usual.bottom + 6
    assert mouth.top == pytest.approx(usual.top, abs=3)


def test_lips_that_are_a_little_apart_are_measured() -> None:
    """Where the landmarks are unsure, the shadow between the lips tells how far they are apart: they can close."""
    for drawn, opening, least, most in ((0.0, 0.3, 0, 0), (0.3, 0.3, 6, 10), (0.3, 0.05, 0, 0)):
        image = draw(portrait(), drawn)
        face = find_face(image)
        unsure = replace(face, landmarks=replace(face.landmarks, opening=opening))
        assert least <= find_mouth(image, unsure).gap <= most


@pytest.mark.parametrize(("left", "right"), [(-24, -4), (2, 22)])
def test_teeth_that_show_on_one_side_part_the_lips(left: float, right: float) -> None:
    """A gap in less than half of the mouth, beside its middle, is as high as it is there, and can close."""
    image = draw(portrait(), 0.0).copy()
    face = find_face(image)
    unsure = replace(face, landmarks=replace(face.landmarks, opening=0.3))
    shut = find_mouth(image, unsure)
    assert shut.gap == 0
    u = np.array([left, right, right - 4, (left + right) / 2, left + 4]) / shut.half_width
    down = shut.top + np.array([0, 0, 5, 6, 5])
    gap = np.stack([shut.x + shut.half_width * u, shut.y + shut.tilt * u + down * (1 - u**2)], 1)
    teeth = transform_points(gap, invert_affine(face.to_upright)).round().astype(np.int32)
    cv2.fillPoly(image, [teeth], (176, 196, 206), cv2.LINE_AA)
    assert 4 <= find_mouth(image, unsure).gap <= 9


@pytest.mark.parametrize("down", [16, 24, 32])
def test_lips_above_a_fold_of_the_chin_are_found(down: float) -> None:
    """Landmarks that take a fold below the lips for the mouth, as in an extreme frown, are told by its colour."""
    image = draw(portrait(), 0.0).copy()
    face = find_face(image)
    usual, back = find_mouth(image, face), invert_affine(face.to_upright)
    u = np.linspace(-1, 1, 21)
    level = usual.y + down + 12 * u**2
    fold = transform_points(np.stack([usual.x + 38 * u, level], 1), back).round().astype(np.int32)
    cv2.polylines(image, [fold], False, (90, 110, 140), 2, cv2.LINE_AA)
    points = face.landmarks.points.copy()
    points[LIPS] += down * back[:, 1]
    misled = replace(face, landmarks=replace(face.landmarks, points=points, opening=0.2))
    mouth = find_mouth(image, misled)
    assert mouth.y + mouth.top == pytest.approx(usual.y + usual.top, abs=4)
    assert mouth.x == pytest.approx(usual.x, abs=4)
    assert mouth.half_width == pytest.approx(usual.half_width, abs=5)
