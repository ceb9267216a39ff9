"""Frames drawn from one portrait: mouth and eyes move, the rest does not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.arrays import U8
from models.preview.geometry import invert_affine, transform_points
from models.preview.interior import measure_tone
from models.preview.mouth import find_mouth
from models.preview.renderer import Label, Portrait
from tests.models.preview.portraits import CONDITIONS, draw, find_face, open_scene, portrait


def measure_darkness(image: U8, frame: U8) -> float:
    """Return the share of dark pixels, the cavity, in the box of the mouth."""
    face, mouth, _ = open_scene(image)
    back = invert_affine(face.to_upright)
    corners = [(mouth.x - 40, mouth.y - 8), (mouth.x + 40, mouth.y + 45)]
    (x0, y0), (x1, y1) = transform_points(corners, back).round().astype(int)
    box = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[min(y0, y1) : max(y0, y1), min(x0, x1) : max(x0, x1)]
    return float((box < 70).mean())


@pytest.mark.parametrize("condition", ["as it is", "grey", "pale"])
def test_an_open_mouth_is_dark_inside_and_a_closed_one_is_not(condition: str) -> None:
    """A wider mouth shows more cavity; a closed one shows none."""
    image = CONDITIONS[condition](portrait())
    shares = [measure_darkness(image, draw(image, opening)) for opening in (0.0, 0.3, 0.6, 1.0)]
    assert shares == sorted(shares)
    assert shares[0] < 0.03
    assert shares[-1] > 0.08


def test_the_smile_is_closed_in_silence() -> None:
    """Teeth of the photo disappear when the mouth closes."""
    image = portrait()
    closed = draw(image, 0.0)
    face, mouth, _ = open_scene(image)
    back = invert_affine(face.to_upright)
    x, y = transform_points([(mouth.x, mouth.y + mouth.top + 7)], back)[0].round().astype(int)
    before, after = (cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[y - 1 : y + 2, x - 8 : x + 9] for frame in (image, closed))
    assert before.mean() - after.mean() > 15


def test_rounding_narrows_the_mouth() -> None:
    """An o is narrower than an e of the same opening."""
    image = np.asarray(cv2.resize(portrait(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)
    widths = []
    for spread in (-1.0, 0.0, 1.0):
        dark = cv2.cvtColor(draw(image, 0.7, spread), cv2.COLOR_BGR2GRAY) < 70
        face, mouth, _ = open_scene(image)
        back = invert_affine(face.to_upright)
        x, y = transform_points([(mouth.x, mouth.y + mouth.bottom)], back)[0].round().astype(int)
        columns = np.flatnonzero(dark[y - 60 : y + 30, x - 120 : x + 121].any(0))
        widths.append(int(np.ptp(columns)))
    assert widths[0] < 0.85 * widths[1]
    assert widths[1] <= widths[2]


def test_nothing_changes_outside_the_lower_face() -> None:
    """Eyes, hair and background are the photo's own pixels, without a seam."""
    image = portrait()
    face, _, _ = open_scene(image)
    frame = draw(image, 0.8)
    changed = np.abs(frame.astype(int) - image).max(2) > 0
    x, y, w, h = face.box
    outside = np.ones(image.shape[:2], bool)
    outside[int(y + 0.45 * h) : int(y + 1.6 * h), int(x - 0.3 * w) : int(x + 1.3 * w)] = False
    assert not changed[outside].any()


def test_eyes_close_and_open() -> None:
    """At full blink skin covers the pupils."""
    image = portrait()
    shut = draw(image, 0.0, shut=1.0)
    for x, y in find_face(image).eyes:
        at = np.s_[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
        assert shut[at].mean() > image[at].mean() + 20


@pytest.mark.parametrize("height", [180, 360, 720, 2160])
def test_the_label_is_legible_and_stays_in_its_corner(height: int) -> None:
    """The label has bright letters on a darkened corner, and takes less than a sixth of the height."""
    width = height * 16 // 9
    frame = np.full((height, width, 3), 200, np.uint8)
    Label(width, height, np.array([[width / 2, height / 4, height / 2, height / 2]])).stamp(frame)
    changed = np.argwhere((frame != 200).any(2))
    assert changed.min() == 0
    assert changed[:, 0].max() < height / 6
    assert changed[:, 1].max() < width * 0.75
    assert frame[: height // 6].max() >= 240


def test_the_label_makes_room_for_a_face() -> None:
    """Where a face is in the top left corner, the label is in the bottom left one."""
    frame = np.full((360, 360, 3), 200, np.uint8)
    Label(360, 360, np.array([[200.0, 90, 100, 100], [20, 5, 200, 200]])).stamp(frame)
    assert (frame[:240] == 200).all()
    assert (frame[340:, :100] != 200).any()


def test_a_shut_eye_shows_no_iris_and_keeps_the_brow() -> None:
    """Where iris and white were is skin as light as the cheek's; a dark shadow above the eye isn't pulled over it."""
    image = portrait().copy()
    face = find_face(image)
    points = face.upright_points
    back = invert_affine(face.to_upright)
    shadow = np.zeros(image.shape[:2], np.float32)
    for outer, inner in ((0, 2), (4, 6)):
        x, y = transform_points([tuple((points[outer] + points[inner]) / 2 + (0, -22))], back)[0]
        cv2.ellipse(shadow, (round(x), round(y)), (round(0.3 * face.eye_distance), 7), 0, 0, 360, 0.7, -1)
    image = (image * (1 - cv2.GaussianBlur(shadow, (0, 0), 3))[..., None]).astype(np.uint8)
    shut = Portrait(image, face, find_mouth(image, face), measure_tone(image, face)).render((0, 0), 1.0, None)
    grey, cheek = cv2.cvtColor(shut, cv2.COLOR_BGR2GRAY), transform_points([(-52, 40), (52, 40)], back)
    for (x, y), (cheek_x, cheek_y) in zip(face.eyes, cheek, strict=True):
        lid = grey[round(y) - 4 : round(y) + 3, round(x) - 9 : round(x) + 10]
        skin = np.median(grey[round(cheek_y) - 4 : round(cheek_y) + 5, round(cheek_x) - 6 : round(cheek_x) + 7])
        assert np.percentile(lid, 5) > 0.62 * skin
        assert lid.max() < 1.15 * skin
    brow = transform_points([tuple(points[21]), tuple(points[22])], back).round().astype(int)
    for x, y in brow:
        assert (shut[y - 3 : y + 4, x - 9 : x + 10] == image[y - 3 : y + 4, x - 9 : x + 10]).all()


def test_a_lid_in_a_dark_socket_is_as_dark() -> None:
    """A shut lid has the light of the skin around its own eye, not of the cheek, and lashes as its only dark line."""
    image = portrait().copy()
    face = find_face(image)
    shade = np.zeros(image.shape[:2], np.float32)
    for x, y in face.eyes:
        cv2.circle(shade, (round(x), round(y)), round(0.42 * face.eye_distance), 0.5, -1)
    image = (image * (1 - cv2.GaussianBlur(shade, (0, 0), 3))[..., None]).astype(np.uint8)
    shut = Portrait(image, face, find_mouth(image, face), measure_tone(image, face)).render((0, 0), 1.0, None)
    grey = cv2.cvtColor(shut, cv2.COLOR_BGR2GRAY).astype(float)
    for x, y in face.eyes:
        columns = grey[round(y) - 8 : round(y) + 13, round(x) - 6 : round(x) + 7].mean(1)
        around = np.median(grey[round(y) + 18 : round(y) + 24, round(x) - 6 : round(x) + 7])
        assert columns[:8].max() < 1.3 * around
        assert columns.argmin() >= 9, "the darkest line is below"
        assert columns.min() < 0.6 * columns[:8].max()
