"""First parts: shown while their jobs run, gone afterwards, and never a danger to what others have put there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.fs import discard, make_safe_name
from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from agent.results.first_part import FirstParts
from agent.settings import Settings
from tests.agent.samples import add_job, read_job


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    settings.folders.outbox.mkdir(parents=True, exist_ok=True)
    settings.folders.staging.mkdir(parents=True, exist_ok=True)
    return Ledger(settings.folders.ledger)


def stage(settings: Settings) -> Path:
    staging = settings.folders.staging / "one.first"
    staging.mkdir()
    (staging / "first.mp4").write_bytes(b"video")
    return staging


def show(settings: Settings, ledger: Ledger) -> FirstParts:
    """A running job, and its first part in the outbox, if that can be."""
    job = add_job(ledger, "one", state=JobState.RUNNING, name="one")
    parts = FirstParts(settings.folders, ledger)
    parts.show(job, stage(settings))
    return parts


def test_a_first_part_is_there_until_the_job_ends(settings: Settings, ledger: Ledger) -> None:
    """The folder says whose it is and that it is no result; it stays while the job runs, and then leaves nothing."""
    parts = show(settings, ledger)
    folder = settings.folders.outbox / "one.part"
    assert sorted(path.name for path in folder.iterdir()) == ["first.json", "first.mp4"]
    record = json.loads((folder / "first.json").read_text())
    assert (record["uid"], record["state"], "开头" in record["message_zh"]) == ("one", "running", True)
    assert ledger.rows("SELECT first_part FROM job_status") == [{"first_part": "one.part"}]
    parts.remove_ended()
    assert folder.exists()
    ledger.transitions.finish(read_job(ledger, "one"), "one", at_ms=2000)
    FirstParts(settings.folders, ledger).remove_ended()
    assert not folder.exists()
    assert ledger.rows("SELECT first_part FROM job_status") == [{"first_part": None}]
    assert list(settings.folders.staging.iterdir()) == []


def test_what_is_there_already_stays(settings: Settings, ledger: Ledger) -> None:
    """A folder of that name is somebody's: the job has no first part, and the folder is not touched."""
    folder = settings.folders.outbox / "one.part"
    folder.mkdir()
    (folder / "first.mp4").write_bytes(b"mine")
    parts = show(settings, ledger)
    ledger.transitions.finish(read_job(ledger, "one"), "one", at_ms=2000)
    parts.remove_ended()
    assert (folder / "first.mp4").read_bytes() == b"mine"
    assert list(settings.folders.staging.iterdir()) == []


def test_files_of_others_in_it_stay(settings: Settings, ledger: Ledger) -> None:
    """Only what is ours goes; the folder stays with the rest, and the job ends as ever."""
    parts = show(settings, ledger)
    folder = settings.folders.outbox / "one.part"
    (folder / "notes.txt").write_text("looks good")
    ledger.transitions.finish(read_job(ledger, "one"), "one", at_ms=2000)
    parts.remove_ended()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert ledger.rows("SELECT first_part FROM job_status") == [{"first_part": None}]


@pytest.mark.parametrize("what", ["link", "other"])
def test_what_has_taken_its_place_stays(settings: Settings, ledger: Ledger, tmp_path: Path, what: str) -> None:
    """A link is not followed, and the first part of another job is not removed."""
    parts = show(settings, ledger)
    folder = settings.folders.outbox / "one.part"
    elsewhere = folder.rename(tmp_path / "elsewhere")
    if what == "link":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir()
        (folder / "first.json").write_text('{"uid": "two"}')
    ledger.transitions.finish(read_job(ledger, "one"), "one", at_ms=2000)
    parts.remove_ended()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["first.json", "first.mp4"]
    assert list(folder.iterdir())


def test_what_no_row_names_is_removed_at_the_start(settings: Settings, ledger: Ledger) -> None:
    """As after a restored ledger; what has no record of ours stays, and so does the first part of a running job."""
    show(settings, ledger)
    for name, text in (("lost.part", '{"uid": "lost"}'), ("mine.part", "[]"), ("odd.part", "{")):
        (settings.folders.outbox / name).mkdir()
        (settings.folders.outbox / name / "first.json").write_text(text)
    inner = settings.folders.outbox / "batch" / "lost.part"
    inner.mkdir(parents=True)
    (inner / "first.json").write_text('{"uid": "lost"}')
    FirstParts(settings.folders, ledger).recover()
    left = ["batch", "mine.part", "odd.part", "one.part"]
    assert sorted(path.name for path in settings.folders.outbox.iterdir()) == left
    assert inner.is_dir()
    FirstParts(settings.folders, ledger).recover(in_batches=True)
    assert not inner.exists()


def test_a_job_goes_on_without(settings: Settings, ledger: Ledger) -> None:
    """What a worker said it made and did not make is not shown; nor is anything where the outbox is gone."""
    job = add_job(ledger, "one", state=JobState.RUNNING, name="one")
    staging = stage(settings)
    (staging / "first.mp4").unlink()
    parts = FirstParts(settings.folders, ledger)
    parts.show(job, staging)
    assert list(settings.folders.outbox.iterdir()) == []
    settings.folders.outbox.rmdir()
    parts.show(job, stage(settings))
    ledger.transitions.finish(read_job(ledger, "one"), "one", at_ms=2000)
    parts.remove_ended()
    assert ledger.rows("SELECT first_part FROM job_status") == [{"first_part": None}]


def test_a_long_name_is_not_that_of_the_result(settings: Settings, ledger: Ledger) -> None:
    """However long the name of the job is, its folder ends in .part, and the name of the result is free."""
    job = add_job(ledger, "one", state=JobState.RUNNING, name="n" * 150)
    FirstParts(settings.folders, ledger).show(job, stage(settings))
    assert [path.name for path in settings.folders.outbox.iterdir()] == [f"{make_safe_name(job.name)}.part"]


def test_a_row_names_no_folder_that_is_not_there(settings: Settings, ledger: Ledger) -> None:
    """Neither where nothing was made or moved, nor after a crash before the rename: the next attempt shows one."""
    parts = show(settings, ledger)
    folder = settings.folders.outbox / "one.part"
    FirstParts(settings.folders, ledger).recover()
    assert read_job(ledger, "one").first_part == "one.part"
    discard(folder)
    FirstParts(settings.folders, ledger).recover()
    assert read_job(ledger, "one").first_part is None
    parts.show(read_job(ledger, "one"), settings.folders.staging / "gone.first")
    assert read_job(ledger, "one").first_part is None
    settings.folders.outbox.rmdir()
    parts.show(read_job(ledger, "one"), stage(settings))
    assert read_job(ledger, "one").first_part is None
