"""Faces, mouths and what is drawn: on one real portrait in many conditions, and on pictures without a face."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import cv2
import numpy as np
import pytest

from models.arrays import U8
from models.preview.face import Face, choose_largest, find_faces, invert_affine, transform_points
from models.preview.head import HeadField
from models.preview.interior import measure_tone
from models.preview.label import Label
from models.preview.lips import STEP, LipField
from models.preview.motion import make_blinks, make_sway
from models.preview.mouth import Mouth, find_mouth, fit_mouth
from models.preview.renderer import Portrait
from models.preview.track import follow_face
from tests.share import EXAMPLES

FPS = Fraction(25)


@cache
def portrait() -> U8:
    return np.asarray(cv2.imread(str(EXAMPLES / "collins.jpg")), np.uint8)


def turned(image: U8, degrees: float) -> U8:
    h, w = image.shape[:2]
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 0.8)
    return np.asarray(cv2.warpAffine(image, turn, (w, h), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def grey(image: U8) -> U8:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


def pale(image: U8) -> U8:
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), np.uint8)
    hsv[..., 1] //= 3
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)


def smaller(image: U8) -> U8:
    return np.asarray(cv2.resize(image, (320, 320), interpolation=cv2.INTER_AREA), np.uint8)


def darker(image: U8) -> U8:
    return (image * 0.45).astype(np.uint8)


CONDITIONS: dict[str, Callable[[U8], U8]] = {
    "as it is": lambda image: image,
    "grey": grey,
    "pale": pale,
    "small": smaller,
    "dark": darker,
    "tilted left": lambda image: turned(image, 20),
    "tilted right": lambda image: turned(image, -20),
}


FOUND: dict[bytes, Face] = {}


def the_face(image: U8) -> Face:
    """Searching takes half a second: each picture is searched once."""
    key = hashlib.sha256(image.tobytes()).digest()
    if key not in FOUND:
        faces = find_faces(image)
        assert faces
        FOUND[key] = choose_largest(faces)
    return FOUND[key]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_mouth_is_found_in_every_condition(condition: str) -> None:
    """Grey, pale, small, dark and tilted by 20 degrees, the mouth lies where it lies in the original."""
    usual = find_mouth(portrait(), the_face(portrait()))
    image = CONDITIONS[condition](portrait())
    mouth = find_mouth(image, the_face(image))
    assert mouth.is_visible
    assert abs(mouth.x - usual.x) < 6
    assert abs(mouth.y - usual.y) < 6
    assert abs(mouth.half_width - usual.half_width) < 6
    assert mouth.gap > 8, "the portrait smiles: its lips are apart"
    assert mouth.teeth


def scene(image: U8) -> tuple[Face, Mouth, Portrait]:
    face = the_face(image)
    mouth = find_mouth(image, face)
    return face, mouth, Portrait(image, face, mouth, measure_tone(image, face))


def drawn(image: U8, opening: float, spread: float = 0.0, shut: float = 0.0) -> U8:
    return np.asarray(scene(image)[2].render((opening, spread), shut, None), np.uint8)


def darkness(image: U8, frame: U8) -> float:
    """Share of dark pixels in the box of the mouth: the cavity."""
    face, mouth, _ = scene(image)
    back = invert_affine(face.to_upright)
    corners = [(mouth.x - 40, mouth.y - 8), (mouth.x + 40, mouth.y + 45)]
    (x0, y0), (x1, y1) = transform_points(corners, back).round().astype(int)
    box = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[min(y0, y1) : max(y0, y1), min(x0, x1) : max(x0, x1)]
    return float((box < 70).mean())


@pytest.mark.parametrize("condition", ["as it is", "grey", "pale"])
def test_an_open_mouth_is_dark_inside_and_a_closed_one_is_not(condition: str) -> None:
    """The wider the mouth, the more cavity is seen; closed there is none."""
    image = CONDITIONS[condition](portrait())
    shares = [darkness(image, drawn(image, opening)) for opening in (0.0, 0.3, 0.6, 1.0)]
    assert shares == sorted(shares)
    assert shares[0] < 0.03
    assert shares[-1] > 0.08


def test_a_grey_portrait_stays_grey() -> None:
    """The cavity, the tongue and the teeth take the colour of the picture."""
    image = grey(portrait())
    frame = drawn(image, 1.0).astype(int)
    assert np.abs(frame[..., 0] - frame[..., 2]).max() <= 2


def test_the_smile_is_closed_in_silence() -> None:
    """Teeth that the photo shows disappear when the mouth closes: the middle of the mouth is lip, not white."""
    image = portrait()
    closed = drawn(image, 0.0)
    face, mouth, _ = scene(image)
    back = invert_affine(face.to_upright)
    x, y = transform_points([(mouth.x, mouth.y + mouth.top + 7)], back)[0].round().astype(int)
    before, after = (cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[y - 1 : y + 2, x - 8 : x + 9] for frame in (image, closed))
    assert before.mean() - after.mean() > 15


def test_rounding_narrows_the_mouth() -> None:
    """An o is narrower than an e of the same opening."""
    image = portrait()
    widths = []
    for spread in (-1.0, 0.0, 1.0):
        dark = cv2.cvtColor(drawn(image, 0.7, spread), cv2.COLOR_BGR2GRAY) < 70
        face, mouth, _ = scene(image)
        back = invert_affine(face.to_upright)
        x, y = transform_points([(mouth.x, mouth.y + 24)], back)[0].round().astype(int)
        rows = dark[y - 4 : y + 5, x - 60 : x + 61].any(0)
        widths.append(int(rows.sum()))
    assert widths[0] < 0.85 * widths[1]
    assert widths[1] <= widths[2]


def test_nothing_changes_outside_the_lower_face() -> None:
    """Eyes, hair and background are the photo's own pixels, and there is no seam at the patch's border."""
    image = portrait()
    face, _, _ = scene(image)
    frame = drawn(image, 0.8)
    changed = np.abs(frame.astype(int) - image).max(2) > 0
    x, y, w, h = face.box
    outside = np.ones(image.shape[:2], bool)
    outside[int(y + 0.45 * h) : int(y + 1.6 * h), int(x - 0.3 * w) : int(x + 1.3 * w)] = False
    assert not changed[outside].any()


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


def test_a_mouth_may_be_given_by_hand() -> None:
    """A box in pixels becomes a mouth of that width, and counts as found."""
    face = the_face(portrait())
    found = find_mouth(portrait(), face)
    back = invert_affine(face.to_upright)
    (x0, y0), (x1, y1) = transform_points([(found.x - 30, found.y - 10), (found.x + 30, found.y + 10)], back)
    mouth = fit_mouth(portrait(), face, (x0, y0, x1 - x0, y1 - y0))
    assert mouth.is_visible
    assert mouth.half_width == pytest.approx(30, abs=3)
    assert mouth.y == pytest.approx(found.y, abs=4)


def find_largest(frame: U8) -> Face | None:
    return choose_largest(faces) if (faces := find_faces(frame)) else None


def test_a_moving_face_is_followed() -> None:
    """Shifted, turned and scaled from frame to frame, the eyes are followed within a few pixels."""
    image = portrait()
    first = np.array(the_face(image).eyes)
    moves = []
    for n in range(30):
        move = np.asarray(cv2.getRotationMatrix2D((320, 320), 4 * np.sin(n / 6), 1 + 0.003 * n), np.float64)
        move[:, 2] += (2.0 * n, 10 * np.sin(n / 9))
        moves.append(move)
    warped = (cv2.warpAffine(image, move, (640, 640), borderMode=cv2.BORDER_REFLECT_101) for move in moves)
    frames = [np.asarray(frame, np.uint8) for frame in warped]
    ticks: list[int] = []
    track = follow_face(iter(frames), find_largest, ticks.append)
    wanted = np.array([transform_points([tuple(eye) for eye in first], move) for move in moves])
    assert np.abs(track.eyes - wanted).max() < 6
    assert (track.weight == 1).all()
    assert ticks == list(range(1, 31))


def test_frames_without_the_face_fade_out() -> None:
    """Where the face is gone the mouth is left alone, with a fade before and after; it is found again."""
    image = portrait()
    empty = np.full_like(image, 120)
    frames = [image] * 14 + [empty] * 6 + [image] * 14
    track = follow_face(iter(frames), find_largest, lambda _: None)
    assert track.weight[0] == 1
    assert (track.weight[14:20] == 0).all()
    assert 0 < track.weight[13] < 1
    assert track.weight[-1] == 1
    assert np.isfinite(track.eyes).all()


def test_eyes_close_and_open() -> None:
    """At full blink the pupils are covered by skin; open, nothing is changed."""
    image = portrait()
    shut = drawn(image, 0.0, shut=1.0)
    for x, y in the_face(image).eyes:
        at = np.s_[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
        assert shut[at].mean() > image[at].mean() + 20


def test_blinks_and_sway_are_seeded_and_small() -> None:
    """The same seed blinks and sways alike; a minute has 10 to 35 blinks; the head moves by a few percent, smoothly."""
    shut = make_blinks(1500, FPS, 3)
    assert np.array_equal(shut, make_blinks(1500, FPS, 3))
    assert not np.array_equal(shut, make_blinks(1500, FPS, 4))
    assert 10 <= (np.diff((shut > 0.5).astype(int)) == 1).sum() <= 35
    poses = make_sway(np.zeros(1500, np.float32), FPS, 3)
    assert np.array_equal(poses, make_sway(np.zeros(1500, np.float32), FPS, 3))
    assert np.abs(poses).max() < 4, "degrees and hundredths of the eye distance"
    assert np.abs(np.diff(poses, axis=0)).max() < 0.4
    assert (poses[0] == 0).all(), "a result begins as the photo stands"


def test_the_head_moves_and_the_background_stands() -> None:
    """A turned head is moved by about what was asked; the corners of the picture stay where they are."""
    image = portrait()
    head = HeadField(the_face(image), (640, 640))
    x0, y0, x1, y1 = head.rect
    across, down = head.compute_maps(np.array([0, 10, 0, 0, 0], np.float32))
    still_x, still_y = np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))
    moved = np.hypot(across - still_x, down - still_y)
    (ax, ay), (bx, by) = the_face(image).eyes
    eyes = moved[round((ay + by) / 2) - y0, round((ax + bx) / 2) - x0]
    assert eyes == pytest.approx(0.1 * the_face(image).eye_distance, rel=0.05)
    assert moved[:, 0].max() < 0.5
    assert moved[:, -1].max() < 0.5


def test_skin_never_folds() -> None:
    """Neighbouring spots of the result come from neighbouring spots of the photo, in order: nothing is doubled."""
    field = LipField(find_mouth(portrait(), the_face(portrait())))
    for opening in (0.0, 0.5, 1.0):
        for spread in (-1.0, 0.0, 1.0):
            moved = field.compute_displacements(opening, spread)
            across = STEP - np.diff(moved[..., 0], axis=1)
            below = STEP - np.diff(moved[..., 2], axis=0)[round(60 / STEP) :]
            assert across.min() > 0
            assert below.min() > 0


def test_the_lower_lip_keeps_its_thickness() -> None:
    """At full opening the skin of the lower lip is moved as a whole, neither squeezed nor doubled."""
    mouth = find_mouth(portrait(), the_face(portrait()))
    field = LipField(mouth)
    column = round((mouth.x - field.crop.left) / STEP)
    rows = field.crop.top + STEP * np.arange(round(field.crop.height / STEP) + 1)
    lip = field.compute_displacements(1.0, 0.0)[:, column, 2]
    source = rows[: len(lip)] - lip
    top, bottom = np.interp([mouth.y + mouth.bottom, mouth.y + mouth.bottom + 11], source, rows[: len(lip)])
    assert bottom - top >= 10.5


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
