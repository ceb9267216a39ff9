"""Folders of the inbox: jobs, pairs and voices for an avatar in them, and what hostile ones may not do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.intake.folders import MOST, is_plain
from agent.intake.scanner import BATCH_FILE
from agent.jobs.states import JobState
from tests.agent.intake.desk import Desk
from tests.odd_entries import dropping_powers

REST_S = 3.0
"""The settle time and the patience of the desk."""


def put(desk: Desk, name: str, data: bytes = b"media") -> Path:
    """Write a file into a folder of the inbox."""
    path = desk.folders.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def settle(desk: Desk) -> None:
    desk.turn()
    desk.turn(wait_s=REST_S)
    desk.turn(wait_s=REST_S)


def lose_patience(desk: Desk) -> None:
    settle(desk)
    desk.intake.refuse_others(desk.at_ms)


def test_jobs_and_pairs_in_a_folder_are_taken(desk: Desk) -> None:
    """Each is a job of its own; a job file finds its media beside it, then in the inbox; all know their folder."""
    put(desk, "monday/hello.json", b'{"avatar": "face.jpg", "audio": "voice.wav"}')
    put(desk, "monday/voice.wav")
    put(desk, "monday/pair.jpg")
    put(desk, "monday/pair.wav")
    desk.put("face.jpg")
    settle(desk)
    for name in ("hello", "pair"):
        job = desk.job(name)
        assert job.state is JobState.QUEUED, job.waiting_for
        assert job.spec is not None
        assert job.spec.batch == "monday"
    assert desk.job("hello").media["audio"]["path"] == str(desk.folders.inbox / "monday" / "voice.wav")
    assert desk.job("hello").media["avatar"]["path"] == str(desk.folders.inbox / "face.jpg")


def test_a_voice_in_the_folder_of_an_avatar_is_a_job(desk: Desk) -> None:
    """inbox/anna/voice.wav is spoken by anna of the library; without such an avatar it stays."""
    desk.add_avatar("Anna.mp4")
    put(desk, "anna/voice.wav")
    put(desk, "bert/other.wav")
    settle(desk)
    job = desk.job("voice")
    assert job.state is JobState.QUEUED
    assert job.spec is not None
    assert (job.spec.library_name, job.spec.batch) == ("anna", "anna")
    assert job.media["avatar"]["path"] == str(desk.folders.avatars / "Anna.mp4")
    assert desk.names() == ["voice"]
    assert (desk.folders.inbox / "bert" / "other.wav").exists()


def test_media_that_a_job_names_are_no_job_of_their_own(desk: Desk) -> None:
    """As in 0.1.0 a job file may name media in a folder: they stay there for it."""
    put(desk, "media/anna.jpg")
    put(desk, "media/anna.wav")
    desk.drop("hello", avatar="media/anna.jpg", audio="media/anna.wav")
    settle(desk)
    assert desk.names() == ["hello"]
    assert desk.job("hello").state is JobState.QUEUED
    assert (desk.folders.inbox / "media" / "anna.wav").exists()


def test_a_voice_beside_a_face_or_a_job_file_is_not_taken_alone(desk: Desk) -> None:
    """In an avatar's folder a pair is still a pair."""
    desk.add_avatar("anna.jpg")
    put(desk, "anna/hello.wav")
    put(desk, "anna/hello.jpg")
    settle(desk)
    assert desk.job("hello").media["avatar"]["given"] == "hello.jpg"


def test_a_claim_without_a_row_keeps_its_folder(desk: Desk) -> None:
    """After a crash between the claim and the row the job is the same; half a pair goes back where it was."""
    desk.add_avatar("anna.jpg")
    for uid, name in (("1" * 16, "voice.wav"), ("2" * 16, "half.jpg")):
        folder = desk.folders.claimed / uid
        folder.mkdir()
        (folder / BATCH_FILE).write_text("anna")
        (folder / name).write_bytes(b"media")
    (desk.folders.inbox / "anna").mkdir()
    desk.intake.recover_claims(desk.at_ms)
    spec = desk.job("voice").spec
    assert spec is not None
    assert (spec.batch, spec.library_name) == ("anna", "anna")
    assert (desk.folders.inbox / "anna" / "half.jpg").exists()


def test_no_link_is_looked_into(desk: Desk, tmp_path: Path) -> None:
    """Neither a link to a folder, nor a link in one, nor a folder in a folder is a source of jobs."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("pair.jpg", "pair.wav"):
        (outside / name).write_bytes(b"secret")
    (desk.folders.inbox / "link").symlink_to(outside)
    (desk.folders.inbox / "real").mkdir()
    for name in ("pair.jpg", "pair.wav"):
        (desk.folders.inbox / "real" / name).symlink_to(outside / name)
    put(desk, "deep/deeper/pair.jpg")
    put(desk, "deep/deeper/pair.wav")
    settle(desk)
    assert desk.names() == []


def test_only_so_many_folders_are_looked_into(desk: Desk) -> None:
    """The others wait; a folder whose name no outbox can have is none."""
    for number in range(MOST + 5):
        (desk.folders.inbox / f"folder-{number:04}").mkdir()
    put(desk, f"folder-{MOST + 4:04}/pair.jpg")
    put(desk, f"folder-{MOST + 4:04}/pair.wav")
    settle(desk)
    assert desk.names() == []
    for number in range(MOST):
        (desk.folders.inbox / f"folder-{number:04}").rmdir()
    settle(desk)
    assert desk.names() == ["pair"]


@pytest.mark.parametrize(
    ("name", "plain"),
    [("monday", True), ("你好 世界", True), ("a:b", False), ("CON", False), ("x" * 200, False), ("a\udcffb", False)],
)
def test_a_folder_must_have_a_name_for_the_outbox(name: str, plain: bool) -> None:
    """Results come under the same name, which must be one on every system."""
    assert is_plain(name) is plain


def test_folders_can_be_left_alone(desk: Desk) -> None:
    """With inbox.folders = false they are as in 0.1.0: only media that jobs name."""
    inbox = desk.settings.inbox.model_copy(update={"folders": False})
    desk.settings = desk.settings.model_copy(update={"inbox": inbox})
    desk.open()
    put(desk, "monday/pair.jpg")
    put(desk, "monday/pair.wav")
    settle(desk)
    assert desk.names() == []


def test_what_was_meant_as_a_job_in_a_folder_fails(desk: Desk) -> None:
    """A job file of another name, and a pair of a kind that is not read."""
    put(desk, "monday/hello.json.txt", b'{"avatar": "face.jpg", "audio": "voice.wav"}')
    put(desk, "monday/pair.jpg")
    put(desk, "monday/pair.mid")
    lose_patience(desk)
    assert {name: desk.job(name).error_code for name in desk.names()} == dict.fromkeys(
        ("hello", "pair"), "unsupported_file"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="drops the powers of root")
def test_a_closed_job_file_in_a_folder_fails(desk: Desk) -> None:
    """The folder lets the daemon move it."""
    put(desk, "monday/closed.json", b'{"avatar": "face.jpg", "audio": "voice.wav"}').chmod(0)
    with dropping_powers():
        lose_patience(desk)
    assert desk.job("closed").error_code == "not_readable"


def test_a_folder_in_which_nothing_is_taken_is_named(desk: Desk) -> None:
    """One whose name the outbox can't have, and those beyond the first hundred."""
    for name in ("caf\udce9", " x", *(f"n{number:03d}" for number in range(MOST + 1))):
        put(desk, f"{name}/lone.wav")
    lose_patience(desk)
    rows = {row.name: row.reason for row in desk.intake.ignored.rows}
    assert "outbox" in rows["caf\ufffd"]
    assert "outbox" in rows[" x"]
    assert f"only {MOST}" in rows[f"n{MOST:03d}"]
    assert "only jobs and pairs" in rows["n000"]


@pytest.mark.skipif(os.geteuid() != 0, reason="drops the powers of root")
def test_a_folder_that_can_not_be_read_is_named(desk: Desk) -> None:
    """It is more than a hint in the list: a problem of the share."""
    (desk.folders.inbox / "closed").mkdir(0)
    with dropping_powers():
        lose_patience(desk)
    assert "can't be read: Permission denied" in desk.intake.ignored.texts[0]
