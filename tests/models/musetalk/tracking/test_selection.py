"""Which of several faces is animated."""

from __future__ import annotations

import numpy as np

from models.musetalk.tracking.selection import LOST_FRAMES, FaceSelector, JointSelector

LEFT = [100, 100, 140, 150, 0.9]
RIGHT = [300, 90, 380, 190, 0.8]


def faces(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 5)


def moved(row: list[float], by: float) -> list[float]:
    return [row[0] + by, row[1], row[2] + by, row[3], row[4]]


def test_the_largest_or_a_number_from_left_to_right() -> None:
    """The order in which the detector lists them doesn't matter."""
    assert FaceSelector("largest").select(faces(LEFT, RIGHT)) == 1
    assert FaceSelector("largest").select(faces(RIGHT, LEFT)) == 0
    assert FaceSelector(0).select(faces(RIGHT, LEFT)) == 1
    assert FaceSelector(1).select(faces(RIGHT, LEFT)) == 0


def test_a_face_is_followed_past_a_larger_one() -> None:
    """Once chosen, a face stays chosen while it moves, even when another comes that is larger."""
    who = FaceSelector("largest")
    assert who.select(faces(LEFT)) == 0
    for step in range(1, 6):
        assert who.select(faces(RIGHT, moved(LEFT, 4 * step))) == 1


def test_a_face_that_goes_is_missed_and_then_replaced() -> None:
    """For some frames its place stays empty, then a new face is chosen."""
    who = FaceSelector("largest")
    who.select(faces(LEFT))
    seen = [who.select(faces(RIGHT)) for _ in range(LOST_FRAMES + 1)]
    assert seen == [None] * LOST_FRAMES + [0]
    assert who.select(faces()) is None


def test_a_number_that_is_never_there() -> None:
    """No face is chosen, however many others there are."""
    who = FaceSelector(2)
    assert who.select(faces(LEFT, RIGHT)) is None
    assert who.select(faces()) is None


def boxes(*lefts: float) -> np.ndarray:
    """Return faces of 100 x 100 pixels whose left edges are there."""
    return np.array([[left, 0, left + 100, 100, 0.9] for left in lefts]).reshape(-1, 5)


def test_several_faces_are_never_the_same() -> None:
    """They are numbered where all are seen, followed when they move, and not confused when one is gone."""
    frames = [boxes(300), boxes(300, 0), boxes(30, 290), boxes(280), boxes(280), boxes(60, 270), boxes(200, 240)]
    found = []
    for number in (0, 1):
        selector = JointSelector(number, 2)
        found.append([selector.select(frame) for frame in frames])
    assert found == [[None, 1, 0, None, None, 0, None], [None, 0, 1, 0, 0, 1, 1]]


def test_a_lost_face_is_taken_anew_where_all_are_seen() -> None:
    """A face that comes back elsewhere has its number again, as the other one has kept its own."""
    selector = JointSelector(0, 2)
    assert selector.select(boxes(0, 300)) == 0
    assert [selector.select(boxes(300)) for _ in range(LOST_FRAMES)] == [None] * LOST_FRAMES
    assert selector.select(boxes(300, 600)) == 1
