"""Faces in pictures, and pictures without any."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.preview.face import choose_largest, find_faces, measure_smallest
from models.preview.mouth import find_mouth
from tests.models.preview.portraits import find_face, portrait


def test_several_faces_come_from_left_to_right() -> None:
    """Both faces of a picture are found, in order; the larger one is the default."""
    small = cv2.resize(portrait(), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    both = np.full((640, 640 + small.shape[1], 3), 127, np.uint8)
    both[: small.shape[0], : small.shape[1]] = small
    both[:, small.shape[1] :] = portrait()
    faces = find_faces(both)
    assert len(faces) == 2
    assert faces[0].box[0] < faces[1].box[0]
    assert choose_largest(faces) is faces[1]


def test_pictures_without_a_face_have_none() -> None:
    """Noise, stripes, discs like coins, and a page of text-like lines are not taken for faces."""
    rng = np.random.default_rng(5)
    discs = np.full((480, 640, 3), 60, np.uint8)
    for _ in range(24):
        centre = (int(rng.integers(40, 600)), int(rng.integers(40, 440)))
        cv2.circle(discs, centre, int(rng.integers(20, 45)), tuple(int(v) for v in rng.integers(90, 220, 3)), -1)
    text = np.full((480, 640, 3), 240, np.uint8)
    for row in range(30, 470, 22):
        cv2.putText(text, "the quick brown fox jumps over the lazy dog", (10, row), 0, 0.7, (20, 20, 20), 1)
    noise = rng.integers(0, 256, (480, 640, 3)).astype(np.uint8)
    background = portrait()[300:640, 0:200]
    for image in (discs, text, noise, np.ascontiguousarray(background)):
        assert find_faces(image) == ()


def test_a_small_face_in_a_large_frame_is_found() -> None:
    """A face of 80 pixels in a frame of 1080 lines is found, with its eyes and mouth where they are."""
    small = cv2.resize(portrait(), None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    frame = np.full((1080, 1920, 3), 110, np.uint8)
    frame[500:756, 1200:1456] = small
    [face] = find_faces(frame)
    usual = find_face(portrait())
    wanted = np.array(usual.eyes) * 0.4 + (1200, 500)
    assert np.abs(np.array(face.eyes) - wanted).max() < 3
    mouth, known = find_mouth(frame, face), find_mouth(portrait(), usual)
    assert abs(mouth.y - known.y) < 8
    assert abs(mouth.x - known.x) < 8


def test_a_face_cut_by_the_edge_is_found() -> None:
    """A face whose ear and temple are outside of the picture counts."""
    image = portrait()
    whole = find_face(image)
    left = round(whole.eyes[0][0] - 0.42 * whole.eye_distance)
    [face] = find_faces(np.ascontiguousarray(image[:, left:]))
    assert np.abs(np.array(face.eyes) + (left, 0) - np.array(whole.eyes)).max() < 0.08 * whole.eye_distance


@pytest.mark.parametrize("size", [(1920, 1080), (4096, 2304)])
def test_the_smallest_width_is_true(size: tuple[int, int]) -> None:
    """A face of the smallest width that is promised is found in a frame of that size."""
    wide = measure_smallest(*size)
    face = find_face(portrait())
    scale = wide / face.box[2]
    small = cv2.resize(portrait(), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame = np.full((size[1], size[0], 3), 110, np.uint8)
    frame[500 : 500 + len(small), 1200 : 1200 + len(small)] = small
    assert len(find_faces(frame)) == 1
