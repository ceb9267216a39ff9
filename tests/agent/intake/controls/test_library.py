"""Avatars join and leave the library by files of the inbox."""

from __future__ import annotations

import os

import pytest

from tests.agent.intake.desk import Desk


def test_a_face_joins_the_library_by_its_name(desk: Desk) -> None:
    """NAME.jpg.avatar is moved as it is, and jobs can name it at once."""
    os.utime(desk.put("anna.jpg.avatar", b"face"), (1_600_000_000, 1_600_000_000))
    desk.put("voice.wav")
    desk.turn()
    assert (desk.folders.avatars / "anna.jpg").read_bytes() == b"face"
    assert desk.inbox_names() == ["voice.wav"]
    desk.drop("hello", avatar="anna")
    desk.turn(wait_s=2.0)
    assert str(desk.job("hello").media["avatar"]["path"]).endswith("/avatars/anna.jpg")


def test_a_face_that_is_being_written_is_awaited(desk: Desk) -> None:
    """A copy that grows joins when it is whole."""
    desk.put("anna.mp4.avatar", b"half", settled=False)
    desk.turn()
    assert desk.inbox_names() == ["anna.mp4.avatar"]
    desk.turn(wait_s=10.0)
    assert desk.inbox_names() == []


@pytest.mark.parametrize("name", ["anna.png.avatar", "anna.avatar", "anna.txt.avatar"])
def test_what_cannot_join_is_a_problem_of_its_own(desk: Desk, name: str) -> None:
    """A name that is taken, or is no face's, stays in the inbox and replaces nothing; other files go on."""
    desk.add_avatar("Anna.jpg")
    desk.put(name, b"other")
    desk.put("pause", b"")
    desk.turn()
    assert desk.intake.is_paused
    assert desk.inbox_names() == [name]
    assert [path.read_bytes() for path in desk.folders.avatars.iterdir()] == [b"avatar"]
    assert "can't be carried out" in " ".join(desk.intake.entries.texts)


def test_an_avatar_leaves_for_the_archive(desk: Desk) -> None:
    """NAME.forget keeps the file for as long as the archive keeps others."""
    desk.add_avatar("anna.jpg")
    desk.put("anna.forget", b"")
    desk.turn()
    assert list(desk.folders.avatars.iterdir()) == []
    [kept] = desk.folders.archive.glob("*/anna/anna.jpg")
    assert kept.read_bytes() == b"avatar"
    desk.put("anna.forget", b"")
    desk.turn()
    assert desk.inbox_names() == []


def test_an_avatar_that_jobs_need_stays(desk: Desk) -> None:
    """A job that has not started keeps its face."""
    desk.add_avatar("anna.jpg")
    desk.put("voice.wav")
    desk.drop("hello", avatar="Anna")
    desk.turn()
    desk.put("anna.forget", b"")
    desk.turn()
    assert [path.name for path in desk.folders.avatars.iterdir()] == ["anna.jpg"]
    assert "anna.forget" not in desk.inbox_names()
