"""Faces, mouths and what is drawn: on one real portrait in many conditions, and on pictures without a face."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from models.preview.face import Face, find_faces, largest, transform
from models.preview.label import stamp
from models.preview.life import EYES, Eyelids, blinks, sways
from models.preview.mouth import Mouth, find_mouth, mouth_in_box
from models.preview.patch import Patch, scale_for
from models.preview.renderer import LOWER_FACE, MouthRenderer, tone_of
from models.preview.track import follow
from tests.share import EXAMPLES

Image = npt.NDArray[np.uint8]


@cache
def portrait() -> Image:
    return np.asarray(cv2.imread(str(EXAMPLES / "collins.jpg")), np.uint8)


def turned(image: Image, degrees: float) -> Image:
    h, w = image.shape[:2]
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 0.8)
    return np.asarray(cv2.warpAffine(image, turn, (w, h), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def grey(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


def pale(image: Image) -> Image:
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 1] //= 3
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)


def smaller(image: Image) -> Image:
    return np.asarray(cv2.resize(image, (320, 320), interpolation=cv2.INTER_AREA), np.uint8)


def darker(image: Image) -> Image:
    return (image * 0.45).astype(np.uint8)


CONDITIONS: dict[str, Callable[[Image], Image]] = {
    "as it is": lambda image: image,
    "grey": grey,
    "pale": pale,
    "small": smaller,
    "dark": darker,
    "tilted left": lambda image: turned(image, 20),
    "tilted right": lambda image: turned(image, -20),
}


FOUND: dict[bytes, Face] = {}


def the_face(image: Image) -> Face:
    """Searching takes half a second: each picture is searched once."""
    key = hashlib.sha256(image.tobytes()).digest()
    if key not in FOUND:
        faces = find_faces(image)
        assert faces
        FOUND[key] = largest(faces)
    return FOUND[key]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_mouth_is_found_in_every_condition(condition: str) -> None:
    """Grey, pale, small, dark and tilted by 20 degrees, the mouth lies where it lies in the original."""
    usual = find_mouth(portrait(), the_face(portrait()))
    image = CONDITIONS[condition](portrait())
    mouth = find_mouth(image, the_face(image))
    assert mouth.found
    assert abs(mouth.x - usual.x) < 6
    assert abs(mouth.y - usual.y) < 6
    assert abs(mouth.half_width - usual.half_width) < 6
    assert mouth.gap > 8, "the portrait smiles: its lips are apart"
    assert mouth.teeth


def scene(image: Image) -> tuple[Face, Mouth, MouthRenderer, Patch]:
    face = the_face(image)
    mouth, scale = find_mouth(image, face), scale_for(face)
    patch = Patch(image.shape, face, LOWER_FACE, scale, np.ones((4, 4), np.float32))
    renderer = MouthRenderer(mouth, scale, tone_of(patch.take(image)))
    return face, mouth, renderer, Patch(image.shape, face, LOWER_FACE, scale, renderer.mask)


def drawn(image: Image, opening: float, spread: float = 0.0) -> Image:
    _, _, renderer, patch = scene(image)
    frame = image.copy()
    patch.put(frame, renderer.draw(patch.take(image), opening, spread))
    return frame


def darkness(image: Image, frame: Image) -> float:
    """Share of dark pixels in the box of the mouth: the cavity."""
    face, mouth, _, _ = scene(image)
    back = cv2.invertAffineTransform(face.to_upright)
    corners = [(mouth.x - 40, mouth.y - 8), (mouth.x + 40, mouth.y + 45)]
    (x0, y0), (x1, y1) = transform(corners, back).round().astype(int)
    box = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[min(y0, y1) : max(y0, y1), min(x0, x1) : max(x0, x1)]
    return float((box < 70).mean())


@pytest.mark.parametrize("condition", ["as it is", "grey", "pale"])
def test_an_open_mouth_is_dark_inside_and_a_closed_one_is_not(condition: str) -> None:
    """The wider the mouth, the more cavity is seen; closed there is none."""
    image = CONDITIONS[condition](portrait())
    shares = [darkness(image, drawn(image, opening)) for opening in (0.0, 0.3, 0.6, 1.0)]
    assert shares == sorted(shares)
    assert shares[0] < 0.03
    assert shares[-1] > 0.12


def test_a_grey_portrait_stays_grey() -> None:
    """The cavity, the tongue and the teeth take the colour of the picture."""
    image = grey(portrait())
    frame = drawn(image, 1.0).astype(int)
    assert np.abs(frame[..., 0] - frame[..., 2]).max() <= 2


def test_the_smile_is_closed_in_silence() -> None:
    """Teeth that the photo shows disappear when the mouth closes: the middle of the mouth is lip, not white."""
    image = portrait()
    closed = drawn(image, 0.0)
    face, mouth, _, _ = scene(image)
    back = cv2.invertAffineTransform(face.to_upright)
    x, y = transform([(mouth.x, mouth.y + mouth.top + 7)], back)[0].round().astype(int)
    before, after = (cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[y - 1 : y + 2, x - 8 : x + 9] for frame in (image, closed))
    assert before.mean() - after.mean() > 15


def test_rounding_narrows_the_mouth() -> None:
    """An o is narrower than an e of the same opening."""
    image = portrait()
    widths = []
    for spread in (-1.0, 0.0, 1.0):
        dark = cv2.cvtColor(drawn(image, 0.7, spread), cv2.COLOR_BGR2GRAY) < 70
        face, mouth, _, _ = scene(image)
        x, y = transform([(mouth.x, mouth.y + 24)], cv2.invertAffineTransform(face.to_upright))[0].round().astype(int)
        rows = dark[y - 4 : y + 5, x - 60 : x + 61].any(0)
        widths.append(int(rows.sum()))
    assert widths[0] < 0.85 * widths[1]
    assert widths[1] <= widths[2]


def test_nothing_changes_outside_the_lower_face() -> None:
    """Eyes, hair and background are the photo's own pixels, and there is no seam at the patch's border."""
    image = portrait()
    face, _, _, _ = scene(image)
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
    assert largest(faces) is faces[1]


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
    back = cv2.invertAffineTransform(face.to_upright)
    (x0, y0), (x1, y1) = transform([(found.x - 30, found.y - 10), (found.x + 30, found.y + 10)], back)
    mouth = mouth_in_box(portrait(), face, (x0, y0, x1 - x0, y1 - y0))
    assert mouth.found
    assert mouth.half_width == pytest.approx(30, abs=3)
    assert mouth.y == pytest.approx(found.y, abs=4)


def test_a_moving_face_is_followed() -> None:
    """Shifted, turned and scaled from frame to frame, the eyes are followed within a few pixels."""
    image = portrait()
    first = np.array(the_face(image).eyes)
    moves = []
    for n in range(30):
        move = cv2.getRotationMatrix2D((320, 320), 4 * np.sin(n / 6), 1 + 0.003 * n)
        move[:, 2] += (2.0 * n, 10 * np.sin(n / 9))
        moves.append(move)
    frames = [np.asarray(cv2.warpAffine(image, move, (640, 640), borderMode=cv2.BORDER_REFLECT_101)) for move in moves]
    ticks: list[int] = []
    track = follow(iter(frames), lambda frame: largest(faces) if (faces := find_faces(frame)) else None, ticks.append)
    wanted = np.array([transform([tuple(eye) for eye in first], move) for move in moves])
    assert np.abs(track.eyes - wanted).max() < 6
    assert (track.weight == 1).all()
    assert ticks == list(range(1, 31))


def test_frames_without_the_face_fade_out() -> None:
    """Where the face is gone the mouth is left alone, with a fade before and after; it is found again."""
    image = portrait()
    empty = np.full_like(image, 120)
    frames = [image] * 14 + [empty] * 6 + [image] * 14
    track = follow(iter(frames), lambda frame: largest(faces) if (faces := find_faces(frame)) else None, lambda _: None)
    assert track.weight[0] == 1
    assert (track.weight[14:20] == 0).all()
    assert 0 < track.weight[13] < 1
    assert track.weight[-1] == 1
    assert np.isfinite(track.eyes).all()


def test_eyes_close_and_open() -> None:
    """At full blink the pupils are covered by skin; open, nothing is changed."""
    image = portrait()
    face = the_face(image)
    scale = scale_for(face)
    lids = Eyelids(scale)
    patch = Patch(image.shape, face, EYES, scale, lids.mask)
    shut = image.copy()
    patch.put(shut, lids.draw(patch.take(image), 1.0))
    for x, y in face.eyes:
        at = np.s_[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
        assert shut[at].mean() > image[at].mean() + 20


def test_blinks_and_sways_are_seeded_and_small() -> None:
    """The same seed blinks alike; a minute has 10 to 35 blinks; the head moves by a few percent only."""
    from fractions import Fraction

    closed = blinks(1500, Fraction(25), 3)
    assert np.array_equal(closed, blinks(1500, Fraction(25), 3))
    assert not np.array_equal(closed, blinks(1500, Fraction(25), 4))
    assert 10 <= (np.diff((closed > 0.5).astype(int)) == 1).sum() <= 35
    moves = sways(np.zeros(1500, np.float32), Fraction(25))
    assert np.abs(moves).max(0)[0] < 1.0
    assert np.abs(moves[:, 1:]).max() < 0.05
    assert np.abs(np.diff(moves, axis=0)).max() < 0.15


@pytest.mark.parametrize("height", [180, 360, 720, 2160])
def test_the_label_is_legible_and_stays_in_its_corner(height: int) -> None:
    """The label has bright letters on a darkened corner, and takes less than a sixth of the height."""
    frame = np.full((height, height * 16 // 9, 3), 200, np.uint8)
    stamp(frame)
    changed = np.argwhere((frame != 200).any(2))
    assert changed.size
    assert changed[:, 0].max() < height / 6
    assert changed[:, 1].max() < frame.shape[1] * 0.75
    assert frame[: height // 6].max() >= 240
