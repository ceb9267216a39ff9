"""A face that is followed through a video."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.arrays import F64, U8
from models.preview import track as tracks
from models.preview.face import Face, move_face
from models.preview.geometry import invert_affine, transform_points
from models.preview.track import Track, follow_face, make_track
from tests.models.preview.portraits import draw, find_face, find_largest, portrait


def test_a_moving_face_is_followed() -> None:
    """Shifted, turned and scaled from frame to frame, the eyes are followed within a few pixels."""
    image = portrait()
    first = np.array(find_face(image).eyes)
    moves = []
    for n in range(30):
        move = np.asarray(cv2.getRotationMatrix2D((320, 320), 4 * np.sin(n / 6), 1 + 0.003 * n), np.float64)
        move[:, 2] += (2.0 * n, 10 * np.sin(n / 9))
        moves.append(move)
    warped = (cv2.warpAffine(image, move, (640, 640), borderMode=cv2.BORDER_REFLECT_101) for move in moves)
    frames = [np.asarray(frame, np.uint8) for frame in warped]
    ticks: list[int] = []
    track = follow_face(iter(frames), find_largest, ticks.append)
    wanted = np.array([transform_points(first, move) for move in moves])
    assert np.abs(track.eyes - wanted).max() < 6
    assert (track.weight == 1).all()
    assert ticks == list(range(1, 31))


def test_frames_without_the_face_fade_out() -> None:
    """Without the face the mouth is unchanged, with a fade before and after; then it is found again."""
    image = portrait()
    empty = np.full_like(image, 120)
    frames = [image] * 14 + [empty] * 6 + [image] * 14
    track = follow_face(iter(frames), find_largest, lambda _: None)
    assert track.weight[0] == 1
    assert (track.weight[14:20] == 0).all()
    assert 0 < track.weight[13] < 1
    assert track.weight[-1] == 1
    assert np.isfinite(track.eyes).all()


def test_a_blink_moves_nothing() -> None:
    """While the eyes are shut they stay where they are, and the mouth as well."""
    image, shut = portrait(), draw(portrait(), 0.4, shut=1.0)
    frames = [image] * 16 + [shut] * 6 + [image] * 10
    track = follow_face(iter(frames), find_largest, lambda _: None)
    first = np.array(find_face(image).eyes)
    assert np.abs(track.eyes - first).max() < 3
    assert np.abs(track.place_at_mouth(find_face(image)) - first).max() < 4


def test_the_reference_is_a_frame_with_the_mouth_closed() -> None:
    """The frame that rests on all others is taken from where the lips touch, however the video begins."""
    wide, closed = draw(portrait(), 0.8), draw(portrait(), 0.0)
    track = follow_face(iter([wide] * 6 + [closed] * 6 + [wide] * 6), find_largest, lambda _: None)
    assert 6 <= track.choose_references()[0] < 12


def test_a_lost_face_is_searched_now_and_then() -> None:
    """Frames without a face are searched one in five; the face is there again within five frames."""
    searched: list[int] = []

    def search(frame: U8) -> Face | None:
        searched.append(1)
        return find_largest(frame) if frame.any() else None

    nothing = np.zeros_like(portrait())
    track = follow_face(iter([nothing] * 12 + [portrait()] * 6), search, lambda _: None)
    assert len(searched) == 4
    assert (track.weight[:12] == 0).all()
    assert track.weight[-1] > 0


def test_a_film_without_the_face_has_a_track() -> None:
    """Without any face all weights are 0, and there is a reference."""
    track = follow_face(iter([np.zeros((64, 64, 3), np.uint8)] * 3), lambda _: None, lambda _: None)
    assert track.weight.tolist() == [0, 0, 0]
    assert track.choose_references()[0] == 0


def test_a_mouth_pulled_aside_is_no_reference() -> None:
    """Of frames with shut lips that counts whose mouth is at its usual place."""
    frames = 60
    gap, mouth = np.full(frames, 6.0), np.tile([0.0, 108.0], (frames, 1))
    gap[10:20], mouth[10:20, 0] = 0.0, 14.0
    gap[40:50] = 0.5
    track = Track(np.zeros((frames, 2, 2)), np.ones(frames), mouth, gap, np.ones(frames), np.zeros(frames, int))
    assert 40 <= track.choose_references()[0] < 50


def test_the_mouth_of_a_head_that_turns_quickly_is_followed() -> None:
    """A mouth that moves aside in the face at once is followed by three quarters within two frames."""
    image, face = portrait(), find_face(portrait())
    x, y = np.meshgrid(np.arange(image.shape[1], dtype=np.float32), np.arange(image.shape[0], dtype=np.float32))
    below = (y - face.eyes[0][1]) / face.eye_distance
    lower = np.clip((below - 0.3) / 0.4, 0, 1) * np.exp(-(((x - np.mean(face.eyes, 0)[0]) / face.eye_distance) ** 4))
    shifted = cv2.remap(image, x - (0.1 * face.eye_distance * lower).astype(np.float32), y, cv2.INTER_LINEAR)
    frames = [image] * 12 + [np.asarray(shifted, np.uint8)] * 12
    track = follow_face(iter(frames), find_largest, lambda _: None)
    moved = (track.place_at_mouth(face) - track.eyes).mean(1)[:, 0]
    assert moved[-1] > 0.04 * face.eye_distance
    assert moved[13] > 0.75 * moved[-1]


def test_a_head_that_turns_to_and_fro_is_followed_in_each_frame() -> None:
    """A face that moves by a quarter of the eye distance, and back in the next frame, is where it is."""
    image, face = portrait(), find_face(portrait())
    aside = [(-1) ** n * 0.12 * face.eye_distance for n in range(12)]
    moves = [np.array([[1, 0, dx], [0, 1, 0]]) for dx in aside]
    frames = [np.asarray(cv2.warpAffine(image, move, image.shape[1::-1]), np.uint8) for move in moves]
    track = follow_face(iter(frames), find_largest, lambda _: None)
    wanted = np.array([transform_points(np.array(face.eyes), move) for move in moves])
    assert np.abs(track.eyes - wanted)[2:-2].max() < 0.08 * face.eye_distance


def test_the_mouth_is_placed_against_the_face_of_its_frame() -> None:
    """What the average over the frames lags in the reference frame displaces no other frame."""
    face = find_face(portrait())
    track = Track.of_still(face, 9)
    assert np.abs(track.place_at_mouth(face) - track.eyes).max() < 1e-9
    track.mouth[4] += 6.0
    moved = np.abs(track.place_at_mouth(face) - track.eyes).max((1, 2))
    assert moved[4] > 0.05 * face.eye_distance
    assert np.delete(moved, 4).max() < 1e-9


def test_the_reference_is_a_clear_frame() -> None:
    """Of frames with shut lips that counts in which the head isn't blurred by its movement."""
    closed = draw(portrait(), 0.0)
    blurred = np.asarray(cv2.GaussianBlur(closed, (0, 0), 3), np.uint8)
    track = follow_face(iter([blurred] * 5 + [closed] * 5 + [blurred] * 3 + [closed] * 3), find_largest, lambda _: None)
    assert track.detail[2] < 0.7 * track.detail[7]
    reference = track.choose_references()[0]
    assert 5 <= reference < 10 or reference >= 13


def test_the_mouth_of_a_face_that_turns_far_is_followed() -> None:
    """Where the eyes of a turning head come nearer to each other by a quarter and more, the mouth stays on the lips."""
    image, face = portrait(), find_face(portrait())
    middle = float(np.mean(face.eyes, 0)[0])
    moves = [
        np.array([[wide, 0, middle * (1 - wide)], [0, 1, 0]]) for wide in np.r_[[1.0] * 6, np.linspace(1, 0.72, 18)]
    ]
    frames = [np.asarray(cv2.warpAffine(image, move, image.shape[1::-1]), np.uint8) for move in moves]
    track = follow_face(iter(frames), find_largest, lambda _: None)
    lips = np.array([(np.mean(face.landmarks.points[8:10], 0))])
    eyes = track.place_at_mouth(face)
    placed, wanted = (
        transform_points(transform_points(lips, face.to_upright), invert_affine(move_face(face, eyes[-1]).to_upright)),
        transform_points(lips, moves[-1]),
    )
    assert np.abs(placed - wanted).max() < 0.05 * face.eye_distance


def test_what_hides_the_face_is_not_painted() -> None:
    """While a hand is before mouth and nose the frames stay as they are; then the mouth is where it was."""
    image, face = portrait(), find_face(portrait())
    hidden = image.copy()
    corners = transform_points([(-90, 40), (90, 40), (90, 230), (-90, 230)], invert_affine(face.to_upright))
    cv2.fillConvexPoly(hidden, corners.round().astype(np.int32), (120, 140, 190))
    track = follow_face(iter([image] * 8 + [hidden] * 8 + [image] * 8), find_largest, lambda _: None)
    assert (track.weight[8:16] == 0).all()
    assert track.weight[-1] > 0
    assert np.abs(track.place_at_mouth(face)[-1] - np.array(face.eyes)).max() < 0.05 * face.eye_distance


def mirror_small(image: U8) -> tuple[U8, F64]:
    """Return another shot: the picture mirrored, darker and smaller, on stripes, and how its eyes have moved."""
    move = np.array([[-0.7, 0, 600], [0, 0.7, 20]])
    back = np.asarray(np.indices(image.shape[:2])[0][..., None] // 9 % 2 * 60 + np.full(3, 70), np.uint8)
    shown = cv2.warpAffine(
        (image * 0.7).astype(np.uint8), move, image.shape[1::-1], back, borderMode=cv2.BORDER_TRANSPARENT
    )
    return np.asarray(shown, np.uint8), move


@pytest.mark.parametrize("black", [0, 2])
def test_a_shot_has_a_reference_of_its_own(black: int) -> None:
    """After a cut, also over black frames, the face is where it is at once, and so it is before; nothing fades."""
    image = portrait()
    other, move = mirror_small(image)
    first = np.array(find_face(image).eyes)
    frames = [image] * 8 + [image * 0] * black + [other] * 8
    track = follow_face(iter(frames), find_largest, lambda _: None)
    assert track.shots.tolist() == [0] * (8 + black) + [1] * 8
    one, second = track.choose_references()
    assert (one < 8, second >= 8 + black) == (True, True)
    assert np.abs(track.eyes[:8] - first).max() < 3
    assert np.abs(track.eyes[8 + black :] - transform_points(first, move)[::-1]).max() < 6
    assert (track.weight[8 + black :] == 1).all()


def test_a_shot_with_hardly_a_face_stays_as_it_is() -> None:
    """A shot of three frames has no weight and no reference; those before and after keep theirs."""
    image = portrait()
    frames = [image] * 8 + [mirror_small(image)[0]] * 3 + [image] * 8
    track = follow_face(iter(frames), find_largest, lambda _: None)
    assert track.weight.tolist() == [1] * 8 + [0] * 3 + [1] * 8
    assert len(track.choose_references()) == 2


def test_a_video_of_very_many_shots_has_so_many_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those after the last that gets one stay as they are."""
    monkeypatch.setattr(tracks, "MOST_SHOTS", 2)
    track = make_track(np.ones((24, 2, 2)), np.ones((24, 4)), np.repeat(np.arange(4), 6))
    assert len(track.choose_references()) == 2
    assert track.weight[:12].all()
    assert not track.weight[12:].any()


def test_what_moves_or_flashes_is_no_cut() -> None:
    """A head that jumps further than the flow follows, a flash, and a hand before the face leave one shot."""
    image = portrait()
    hidden, flash = image.copy(), (image * 0.3 + 170).astype(np.uint8)
    hidden[100:400, 200:450] = 130
    aside = image.copy()
    aside[40:480, 260:560] = image[10:450, 170:470]
    frames = [image] * 6 + [flash] * 2 + [image] * 2 + [hidden] * 3 + [aside] * 6
    track = follow_face(iter(frames), find_largest, lambda _: None)
    assert (track.weight[10:13] == 0).all()
    assert not track.shots.any()
