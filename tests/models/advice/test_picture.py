"""Advice about made-up pictures: each fault of the portrait is told, and it alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models import media
from models.advice.picture import advise_on_faces
from models.arrays import U8
from models.preview.face import Face, choose_largest, find_faces
from models.preview.interior import measure_tone
from models.preview.mouth import find_mouth
from models.preview.renderer import Portrait
from tests.share import EXAMPLES


@pytest.fixture(scope="module")
def portrait() -> tuple[U8, Face]:
    picture = media.read_image(EXAMPLES / "collins.jpg", "collins.jpg")
    return picture, choose_largest(find_faces(picture))


def spoil(fault: str, picture: U8, face: Face) -> U8:
    """Return the portrait with a fault."""
    _, y, w, h = (round(value) for value in face.box)
    height, width = picture.shape[:2]
    if fault == "face_small":
        return np.asarray(cv2.resize(picture, None, fx=70 / w, fy=70 / w, interpolation=cv2.INTER_AREA), np.uint8)
    if fault == "face_dark":
        return (picture * 0.2).astype(np.uint8)
    if fault == "face_blurred":
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), w / 50), np.uint8)
    if fault == "face_cut":
        return np.ascontiguousarray(picture[: y + round(0.85 * h)])
    if fault == "face_tilted":
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), 45, 1)
        return np.asarray(cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    if fault == "mouth_open":
        portrait = Portrait(picture, face, find_mouth(picture, face), measure_tone(picture, face))
        return portrait.render((1.0, 0.0), 0.0, None)
    if fault == "mouth_covered":
        covered = picture.copy()
        (a, b), side = face.landmarks.points[8:14].mean(0), 0.3 * w
        cv2.rectangle(
            covered, (round(a - side), round(b - side / 2)), (round(a + side), round(b + side)), (200, 180, 120), -1
        )
        return covered
    across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    away = across - np.float32(face.landmarks.points[19, 0])
    turned = np.float32(face.landmarks.points[19, 0]) + np.where(away > 0, away * 0.8, away * 2.2)
    return np.asarray(cv2.remap(picture, turned.astype(np.float32), down, cv2.INTER_LINEAR), np.uint8)


@pytest.mark.parametrize(
    "fault",
    [
        *("face_small", "face_dark", "face_blurred", "face_cut", "face_tilted", "face_turned"),
        *("mouth_open", "mouth_covered"),
    ],
)
def test_a_fault_is_told(portrait: tuple[U8, Face], fault: str) -> None:
    """By its code, with a sentence that says what to do; the portrait itself has none."""
    picture, face = portrait
    spoilt = spoil(fault, picture, face)
    advice = advise_on_faces([(spoilt, find_faces(spoilt))], None)
    assert fault in advice
    assert advice.keys() <= {
        fault,
        "mouth_open",
    }  # the portrait smiles, and the lips of a picture that is bent are apart
    assert ":" in advice[fault]
    assert advise_on_faces([(picture, (face,))], None) == {}


@pytest.mark.parametrize("size", [(25, 1), (1, 25)], ids=["across", "down"])
def test_a_camera_that_moved_has_blurred_the_face(portrait: tuple[U8, Face], size: tuple[int, int]) -> None:
    """The detail of one direction is gone, that of the other is still there."""
    moved = np.asarray(cv2.blur(portrait[0], size), np.uint8)
    assert "face_blurred" in advise_on_faces([(moved, find_faces(moved))], None)


def test_why_no_face_is_seen(portrait: tuple[U8, Face]) -> None:
    """A picture that is as good as black, or lies on its side, has a face when that is mended."""
    picture, face = portrait
    middle = face.box[0] + face.box[2] / 2
    half = (picture * np.where(np.arange(picture.shape[1]) < middle, 0.1, 1)[None, :, None]).astype(np.uint8)
    for dark in ((picture * 0.1).astype(np.uint8), half):
        assert advise_on_faces([(dark, ())], None).keys() == {"face_dark"}
    for turn, degrees in ((cv2.ROTATE_90_CLOCKWISE, "by 90"), (cv2.ROTATE_180, "by 180")):
        lying = np.asarray(cv2.rotate(picture, turn), np.uint8)
        assert degrees in advise_on_faces([(lying, ())], None)["face_tilted"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_side_of_the_picture_cuts_the_face(portrait: tuple[U8, Face], side: str) -> None:
    """Whichever it is."""
    picture, face = portrait
    x, _, w, _ = face.box
    cut = picture[:, round(x + 0.2 * w) :] if side == "left" else picture[:, : round(x + 0.8 * w)]
    cut = np.ascontiguousarray(cut)
    assert "face_cut" in advise_on_faces([(cut, find_faces(cut))], None)


def test_a_covered_face_is_not_called_dark(portrait: tuple[U8, Face]) -> None:
    """A mask of any colour hides the face, and no light would help."""
    for colour in ((25, 25, 25), (235, 235, 235), (200, 180, 120)):
        picture, face = portrait[0].copy(), portrait[1]
        middle, across = np.mean(face.eyes, 0), face.eye_distance
        corners = np.array([[-0.95, 0.45], [0, 0.35], [0.95, 0.45], [0.75, 1.4], [0, 1.9], [-0.75, 1.4]])
        cv2.fillPoly(picture, [(middle + corners * across).astype(np.int32)], colour)
        found = advise_on_faces([(picture, find_faces(picture))], None).keys()
        assert found & {"mouth_covered", "face_unseen"}
        assert "face_dark" not in found


def test_several_faces_and_none(portrait: tuple[U8, Face]) -> None:
    """The largest speaks unless the job says which; a picture without a face is told."""
    picture, _ = portrait
    both = np.concatenate([picture, picture], 1)
    faces = find_faces(both)
    assert advise_on_faces([(both, faces)], None).keys() == {"several_faces"}
    assert advise_on_faces([(both, faces)], 1) == {}
    assert advise_on_faces([(np.full_like(both, 128), ())], None).keys() == {"face_unseen"}
    assert advise_on_faces([(both, faces)], 2).keys() == {"face_unseen"}


def test_one_frame_of_a_video_is_not_enough(portrait: tuple[U8, Face]) -> None:
    """What is so in most frames counts; a blink of darkness does not."""
    picture, face = portrait
    dark = spoil("face_dark", picture, face)
    seen, unseen = (picture, (face,)), (dark, find_faces(dark))
    assert advise_on_faces([seen, unseen, seen], None) == {}
    assert advise_on_faces([unseen, unseen, seen], None).keys() == {"face_dark"}
    assert advise_on_faces([unseen, (picture, ()), (picture, ())], None).keys() == {"face_dark"}
