"""Publishing and filing away, cut off at their worst moments."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.fs import make_folders
from agent.jobs.states import JobState
from agent.ledger.job import Job
from agent.ledger.ledger import Ledger
from agent.results.publisher import Closing
from agent.service.problems import Troubles
from agent.settings_file import load_settings
from tests.agent.samples import add_job, read_job, set_columns, start_job

OUTLINE = {"frames": 25, "fps": "25", "notes": []}


@pytest.fixture
def closing(tmp_path: Path) -> Closing:
    (tmp_path / "share").mkdir()
    (tmp_path / "musedrop.toml").write_text('share = "share"\nstate = "state"\n[inbox]\nkeep_media_s = 10\n')
    settings = load_settings(tmp_path / "musedrop.toml")
    make_folders((*settings.folders.of_share, *settings.folders.of_state))
    return Closing(settings, Ledger(settings.folders.ledger), Troubles())


def assembled(closing: Closing, uid: str = "u1") -> Job:
    """A running job whose verified video waits in the staging folder."""
    media = {role: {"given": role, "path": "x", "inode": 1, "size": 1, "mtime_ns": 1} for role in ("avatar", "audio")}
    job = add_job(closing.ledger, uid, name="hello", media=media)
    start_job(closing.ledger, job, "token", at_ms=1, stage="publish")
    closing.ledger.update(uid, outline=OUTLINE, facts={"label": True})
    staging = closing.settings.folders.staging / f"{uid}-token"
    staging.mkdir()
    for name in ("result.mp4", "preview.jpg"):
        (staging / name).write_bytes(b"x")
    claimed = closing.settings.folders.claimed / uid
    claimed.mkdir()
    (claimed / "hello.json").write_text("{}")
    return read_job(closing.ledger, uid)


def results(closing: Closing) -> list[str]:
    return sorted(path.name for path in closing.settings.folders.outbox.iterdir())


def test_a_crash_before_the_rename_publishes_at_the_next_start(closing: Closing) -> None:
    """The video in the staging folder is verified: it is published, not made again."""
    assembled(closing)
    closing.recover(at=5, now=0.0)
    closing.publish(0.0, 6)
    assert results(closing) == ["hello"]
    assert closing.ledger.state_of("u1") == "done"


def test_a_job_cancelled_before_it_is_published_leaves_nothing(closing: Closing) -> None:
    """Its video waits for others to be published with: it is taken back, and the staging folder is empty."""
    assembled(closing)
    closing.recover(at=5, now=10.0)
    closing.withhold("u1")
    closing.publish(10.0, 6)
    assert results(closing) == []
    assert not list(closing.settings.folders.staging.iterdir())


def test_several_results_are_published_and_filed_at_once(closing: Closing) -> None:
    """Jobs of one name that are due together: each gets a name of its own, its result and its place."""
    for n in range(5):
        assembled(closing, f"u{n}")
    closing.recover(at=5, now=0.0)
    closing.publish(0.0, 6)
    closing.tidy(7)
    assert results(closing) == ["hello", *(f"hello-{n}" for n in range(2, 6))]
    assert closing.ledger.untidy(1) == []
    assert not list(closing.settings.folders.claimed.iterdir())


def test_a_crash_after_the_rename_publishes_nothing_twice(closing: Closing) -> None:
    """The result is there with the job's uid: only the row is closed."""
    job = assembled(closing)
    closing.unpublished["u1"] = (job, closing.settings.folders.staging / "u1-token", 0.0)
    closing.publish(0.0, 4)
    set_columns(closing.ledger, "u1", state="running", stage="publish", run_token="token", finished_ms=None)
    closing.recover(at=5, now=0.0)
    closing.publish(0.0, 6)
    assert results(closing) == ["hello"]
    assert closing.ledger.state_of("u1") == "done"


def test_a_crash_before_the_video_was_whole_starts_assembling_again(closing: Closing) -> None:
    """Without a video in the staging folder the job is queued, and its leftovers go."""
    assembled(closing)
    (closing.settings.folders.staging / "u1-token" / "result.mp4").unlink()
    closing.recover(at=5, now=0.0)
    job = closing.ledger.job("u1")
    assert job is not None
    assert (job.state, job.stage) == (JobState.QUEUED, "assemble")
    assert not list(closing.settings.folders.staging.iterdir())


def test_an_outbox_that_cannot_be_written_is_tried_again(closing: Closing) -> None:
    """The job waits and says why; when the outbox is back it is published."""
    job = assembled(closing)
    closing.unpublished["u1"] = (job, closing.settings.folders.staging / "u1-token", 0.0)
    outbox = closing.settings.folders.outbox
    outbox.rename(outbox.with_name("away"))
    closing.publish(0.0, 5)
    assert "outbox" in closing.troubles["outbox"]
    assert closing.ledger.rows("SELECT waiting_for FROM job_status")[0]["waiting_for"] == closing.troubles["outbox"]
    outbox.with_name("away").rename(outbox)
    closing.publish(100.0, 6)
    assert closing.troubles["outbox"] == ""
    assert results(closing) == ["hello"]


def test_a_wish_to_cancel_outlives_the_daemon(closing: Closing) -> None:
    """A cancellation that was written down before the crash is carried out after it."""
    closing.ledger.transitions.request_cancel(assembled(closing))
    closing.recover(at=5, now=0.0)
    assert closing.ledger.state_of("u1") == "cancelled"


@pytest.mark.parametrize(("cancel", "state"), [(True, "cancelled"), (False, "queued")])
def test_what_a_job_waited_for_ends_with_its_daemon(closing: Closing, *, cancel: bool, state: str) -> None:
    """A job that waited for a device when the daemon was killed does not say so after the next start."""
    job = assembled(closing)
    closing.ledger.update("u1", stage="render", waiting_for="it needs 9000 MiB of a card")
    if cancel:
        closing.ledger.transitions.request_cancel(job)
    closing.recover(at=5, now=0.0)
    assert closing.ledger.rows("SELECT state, waiting_for FROM job_status") == [{"state": state, "waiting_for": None}]


def test_inputs_are_filed_away_once(closing: Closing) -> None:
    """Cut off between the rename and its record, tidying doesn't make a second folder."""
    job = assembled(closing)
    closing.close_done(job, "hello", 86_400_000)
    closing.tidy(86_400_001)
    [archived] = closing.settings.folders.archive.glob("*/*")
    assert archived.parent.name == "1970-01-02"
    closing.ledger.update("u1", tidied=0)
    closing.tidy(86_400_002)
    assert list(closing.settings.folders.archive.glob("*/*")) == [archived]


def test_shared_media_stay_while_somebody_needs_them(closing: Closing) -> None:
    """A portrait that two jobs name leaves the inbox only after both are done and some time has passed."""
    from agent.fs import take_fingerprint

    face = closing.settings.folders.inbox / "face.jpg"
    face.write_bytes(b"face")
    mark = take_fingerprint(face)
    assert mark is not None
    medium = {"given": "face.jpg", "path": str(face), "inode": mark.inode, "size": mark.size, "mtime_ns": mark.mtime_ns}
    for uid in ("u1", "u2"):
        job = assembled(closing, uid)
        closing.ledger.update(uid, media={"avatar": medium})
        if uid == "u1":
            closing.close_done(job, "hello", 1000)
    closing.tidy(1000)
    closing.sweep(60_000)
    assert face.exists(), "u2 is still running"
    job = closing.ledger.job("u2")
    assert job is not None
    closing.close_done(job, "hello-2", 70_000)
    closing.tidy(70_000)
    closing.sweep(75_000)
    assert face.exists(), "keep_media_s has not passed"
    closing.sweep(90_000)
    assert not face.exists()
    assert len(list(closing.settings.folders.archive.rglob("face.jpg"))) == 1
