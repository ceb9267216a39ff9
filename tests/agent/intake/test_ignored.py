"""What becomes no job is told: in status.json, and in failed/NAME where it was surely meant as one."""

from __future__ import annotations

import json
import os
import unicodedata

import pytest

from agent.intake.ignored import IgnoredEntry
from agent.jobs.states import JobState
from tests.agent.intake.desk import Desk
from tests.odd_entries import dropping_powers

JOB = json.dumps({"avatar": "face.jpg", "audio": "voice.wav"}).encode()
PATIENT_S = 4.0


def wait(desk: Desk, seconds: float = PATIENT_S) -> list[IgnoredEntry]:
    """Let the time pass, a second a turn; return what is ignored then."""
    for _ in range(round(seconds) + 1):
        desk.turn(wait_s=1.0)
        desk.intake.refuse_others(desk.at_ms)
    return desk.intake.ignored.rows


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hello.jxl", "not read"),
        ("hello.psd", "not read"),
        ("hello.ape", "not read"),
        ("hello.txt", "ends in .json"),
        ("hello.json.bak", "ends in .json"),
        ("hello.cancel.txt", "ends in .cancel"),
        ("caf\udce9.retry.txt", "ends in .retry"),
        ("hello.7z", "archive"),
        ("hello.pdf", "no job file"),
        ("hello", "no job file"),
        ("hello.wav", "without a face"),
        ("hello.jpg", "without a voice"),
        ("caf\udce9.nef", "not read"),
    ],
)
def test_a_file_that_is_no_job_is_named(desk: Desk, name: str, reason: str) -> None:
    """Not before the settle time and the patience are over; it stays where it is, and others are taken."""
    desk.put(name, settled=False)
    assert wait(desk, 1.0) == []
    [row] = wait(desk)
    assert reason in row.reason
    assert row.hint
    assert "\udce9" not in row.name
    assert row.name in desk.intake.ignored.texts[0]
    desk.drop("good")
    desk.turn(wait_s=1.0)
    assert "good" in desk.names()
    (desk.folders.inbox / name).unlink()
    assert wait(desk, 1.0) == []
    assert desk.intake.ignored.texts == []


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_what_is_no_file_is_named(desk: Desk, kind: str) -> None:
    """Links are not followed, and said to be."""
    path = desk.folders.inbox / "hello.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(desk.put("real.txt") if kind == "link" else "nowhere")
    row = next(row for row in wait(desk) if row.name == "hello.json")
    assert {"link": "link", "dangling": "link", "folder": "folder", "pipe": "no regular file"}[kind] in row.reason
    assert desk.names() == []


def test_media_of_jobs_are_no_news(desk: Desk) -> None:
    """Neither while they wait, nor while other jobs may need them."""
    desk.drop_media()
    desk.drop("hello")
    assert wait(desk) == []


@pytest.mark.parametrize("name", ["hello.json.txt", "hello.txt"])
def test_a_job_file_of_another_name_fails(desk: Desk, name: str) -> None:
    """Windows hides the end of a name; the hint says how to rename it."""
    desk.put(name, JOB)
    wait(desk)
    job = desk.job("hello")
    assert (job.state, job.error_code) == (JobState.FAILED, "unsupported_file")
    assert "hello.json" in (job.error_hint or "")
    assert desk.inbox_names() == []
    assert desk.claimed_names(job) == [name]


@pytest.mark.parametrize("names", [("hello.jxl", "hello.wav"), ("hello.jpg", "hello.ape"), ("Hello.psd", "hello.mp2")])
def test_a_pair_of_a_kind_that_is_not_read_fails(desk: Desk, names: tuple[str, str]) -> None:
    """Both halves are kept with the error."""
    for name in names:
        desk.put(name)
    wait(desk)
    job = desk.job(names[0].partition(".")[0])
    assert (job.state, job.error_code) == (JobState.FAILED, "unsupported_file")
    assert "convert" in (job.error_hint or "")
    assert desk.claimed_names(job) == sorted(names)


@pytest.mark.parametrize("is_complete", [True, False], ids=["queued", "waiting"])
def test_half_of_such_a_pair_that_another_job_needs_stays(desk: Desk, is_complete: bool) -> None:
    """A picture that can't be read beside the voice of a job takes nothing away from that job."""
    desk.put("talk.wav")
    if is_complete:
        desk.put("face.jpg")
    desk.drop("hello", audio="talk.wav")
    desk.put("talk.jxl")
    wait(desk)
    assert desk.names() == ["hello"]
    assert {"talk.wav", "talk.jxl"} <= {*desk.inbox_names()}
    assert [row.name for row in desk.intake.ignored.rows] == ["talk.jxl"]
    desk.put("face.jpg")
    desk.turn(wait_s=5.0)
    assert desk.job("hello").state is JobState.QUEUED


@pytest.mark.parametrize(
    ("face", "voice"),
    [
        ("Two.jpg", "two.wav"),
        ("TWO.JPG", "two.WAV"),
        (unicodedata.normalize("NFD", "grüße.jpg"), unicodedata.normalize("NFC", "grüße.wav")),
    ],
)
def test_halves_in_another_spelling_are_a_pair(desk: Desk, face: str, voice: str) -> None:
    """As job files find their media."""
    desk.put(face)
    desk.put(voice)
    desk.turn(wait_s=2.0)
    desk.turn(wait_s=2.0)
    assert desk.inbox_names() == []
    assert [job.state for job in [desk.job(face.partition(".")[0])]] == [JobState.QUEUED]


def test_exact_names_come_before_spellings(desk: Desk) -> None:
    """Two pairs that differ in case stay two pairs."""
    for name in ("a.jpg", "A.jpg", "a.wav", "A.wav"):
        desk.put(name, name.encode())
    desk.turn(wait_s=2.0)
    desk.turn(wait_s=2.0)
    for name in ("a", "A"):
        assert {path.name for path in (desk.folders.claimed / desk.job(name).uid).iterdir()} == {
            f"{name}.jpg",
            f"{name}.wav",
        }


@pytest.mark.parametrize("left", ["hello.png", "hello.wav2.mp3", "hello.mp3"])
def test_what_a_pair_leaves_is_named(desk: Desk, left: str) -> None:
    """Of two faces or two voices of one name, it is said which were used."""
    for name in ("hello.jpg", "hello.wav", left):
        desk.put(name)
    [row] = wait(desk)
    if left == "hello.wav2.mp3":
        assert "without a face" in row.reason
        return
    assert "this one was left" in row.reason
    assert len(desk.inbox_names()) == 1


def test_a_name_that_comes_back_is_named(desk: Desk) -> None:
    """A later piece of a file is no voice of its own."""
    desk.put("hello.jpg")
    desk.put("hello.wav")
    desk.turn(wait_s=2.0)
    desk.turn(wait_s=2.0)
    assert desk.names() == ["hello"]
    desk.put("hello.wav", b"the rest")
    [row] = wait(desk)
    assert 'it came again after it was taken for the job "hello"' in row.reason


def test_a_name_of_another_case_is_named(desk: Desk) -> None:
    """It did not come again: it lay beside the half that was taken."""
    for name in ("hello.jpg", "hello.wav", "HELLO.JPG"):
        desk.put(name)
    [row] = wait(desk)
    assert (row.name, "only in case" in row.reason) == ("HELLO.JPG", True)


def test_an_empty_file_is_named(desk: Desk) -> None:
    """It waits for its content."""
    desk.put("hello.wav", b"", settled=False)
    [row] = wait(desk)
    assert row.reason == "it is empty"


@pytest.mark.skipif(os.geteuid() != 0, reason="drops the powers of root")
def test_a_job_file_that_may_not_be_read_fails(desk: Desk) -> None:
    """With a code and a hint, after the patience; one whose rights are given in time is taken."""
    for name in ("hello", "late"):
        desk.drop(name)
        (desk.folders.inbox / f"{name}.json").chmod(0)
    with dropping_powers():
        desk.turn(wait_s=1.0)
        assert desk.intake.entries.count == 2
        (desk.folders.inbox / "late.json").chmod(0o644)
        wait(desk)
    job = desk.job("hello")
    assert (job.state, job.error_code) == (JobState.FAILED, "not_readable")
    assert desk.job("late").state is JobState.WAITING
    assert desk.intake.entries.count == 0
