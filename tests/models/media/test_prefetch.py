"""Iterators that run ahead in a thread: they overlap, and are bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from threading import Barrier, Event

import pytest

from models.media.prefetch import prefetch


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every test ends with the threads that it began with."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def test_the_stages_really_overlap() -> None:
    """Three threads meet: one takes the first item, one works on the second, one makes the third."""
    meeting = Barrier(3, timeout=30)

    def passing(items: Iterator[int], meet_at: int) -> Iterator[int]:
        for n in items:
            if n == meet_at:
                meeting.wait()
            yield n

    first = prefetch(passing(iter(range(3)), meet_at=2), 1)
    second = prefetch(passing(first, meet_at=1), 1)
    assert list(passing(second, meet_at=0)) == [0, 1, 2]


def test_no_more_is_made_than_there_is_room_for() -> None:
    """The source makes `depth` items before any is taken, and one more for each taken."""
    made: list[int] = []
    third = Event()

    def numbers() -> Iterator[int]:
        for n in range(100):
            made.append(n)
            if n == 3:
                third.set()
            yield n

    items = prefetch(numbers(), 3)
    assert next(items) == 0
    assert third.wait(30)
    items.close()
    assert made == [0, 1, 2, 3]
