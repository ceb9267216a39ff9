"""Which of several faces is animated."""

from __future__ import annotations

import numpy as np

from models.musetalk.tracking.selection import LOST_FRAMES, Subject

LEFT = [100, 100, 140, 150, 0.9]
RIGHT = [300, 90, 380, 190, 0.8]


def faces(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 5)


def moved(row: list[float], by: float) -> list[float]:
    return [row[0] + by, row[1], row[2] + by, row[3], row[4]]


def test_the_largest_or_a_number_from_left_to_right() -> None:
    """The order in which the detector lists them doesn't matter."""
    assert Subject("largest").choose(faces(LEFT, RIGHT)) == 1
    assert Subject("largest").choose(faces(RIGHT, LEFT)) == 0
    assert Subject(0).choose(faces(RIGHT, LEFT)) == 1
    assert Subject(1).choose(faces(RIGHT, LEFT)) == 0


def test_a_face_is_followed_past_a_larger_one() -> None:
    """Once chosen, a face stays chosen while it moves, even when another comes that is larger."""
    who = Subject("largest")
    assert who.choose(faces(LEFT)) == 0
    for step in range(1, 6):
        assert who.choose(faces(RIGHT, moved(LEFT, 4 * step))) == 1


def test_a_face_that_goes_is_missed_and_then_replaced() -> None:
    """For some frames its place stays empty, then whoever fits the wish is followed."""
    who = Subject("largest")
    who.choose(faces(LEFT))
    seen = [who.choose(faces(RIGHT)) for _ in range(LOST_FRAMES + 1)]
    assert seen == [None] * LOST_FRAMES + [0]
    assert who.choose(faces()) is None


def test_a_number_that_is_never_there() -> None:
    """Nobody is chosen, however many others there are."""
    who = Subject(2)
    assert who.choose(faces(LEFT, RIGHT)) is None
    assert who.choose(faces()) is None
