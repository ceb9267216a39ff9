"""Publishing, cut off at its worst moments."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from agent.jobs.states import JobState
from agent.results import outbox, publisher
from agent.results.publisher import GATHER_S, PUBLISH_RETRY_S
from agent.scheduler.attempt import FinishedAttempt
from tests.agent.results.desk import Desk
from tests.agent.samples import set_columns


def test_a_finished_attempt_is_published(desk: Desk) -> None:
    """Its row is written once before the rename, with all that is known; then the job is done."""
    attempt = desk.start()
    attempt.devices, attempt.stage_seconds = ["cpu:0"], {"render": 2.5}
    desk.publisher.add(FinishedAttempt(attempt, {"notes": ["a note"]}))
    row = desk.job()
    assert (row.state, row.stage, row.stage_seconds) == (JobState.RUNNING, "publish", {"render": 2.5})
    assert row.outline is not None
    assert row.outline["frames"] == 25
    desk.publisher.publish()
    record = json.loads((desk.folders.outbox / "hello" / "result.json").read_text())
    assert (record["devices"], record["kind"], record["notes"]) == (["cpu:0"], "cpu", ["a note"])
    assert (record["video_bytes"], record["frames"], record["stage_seconds"]) == (1, 25, {"render": 2.5})
    assert (desk.job().state, desk.job().result) == (JobState.DONE, "hello")
    assert desk.publisher.pending == {}


def test_a_result_of_low_quality_has_warnings(desk: Desk) -> None:
    """The job is done; its record and the view name the figure that is beyond the limits, and say what to do."""
    quality = {"frames_measured": 25, "sharpness": 0.1, "sync": 0.9, "lag_ms": -160.0, "seam": None}
    desk.publisher.add(FinishedAttempt(desk.start(), {"quality": quality}))
    desk.publisher.publish()
    record = json.loads((desk.folders.outbox / "hello" / "result.json").read_text())
    assert record["quality"] == quality
    assert [text.partition(":")[0] for text in record["warnings"]] == [
        "the mouth has 10 % of the detail of the upper face",
        "the mouth comes -160 ms after the voice",
    ]
    [row] = desk.ledger.rows("SELECT * FROM job_quality WHERE name = 'hello'")
    assert (row["sharpness"], row["lag_ms"], row["seam"]) == (0.1, -160.0, None)
    assert json.loads(row["warnings"]) == record["warnings"]
    assert desk.job().state == JobState.DONE


def test_results_wait_for_each_other_a_moment(desk: Desk) -> None:
    """What is due is published together with what is due soon; before that, nothing is."""
    desk.add("u1", delay_s=GATHER_S)
    desk.publisher.publish()
    assert desk.results() == []
    assert desk.publisher.next_due_s == GATHER_S
    desk.clock.now = GATHER_S
    desk.add("u2", delay_s=GATHER_S)
    desk.publisher.publish()
    assert desk.results() == ["hello", "hello-2"]


def test_a_drain_publishes_early(desk: Desk) -> None:
    """What only waits for others is published at once when the daemon stops."""
    desk.add(delay_s=GATHER_S)
    desk.publisher.publish(early_s=GATHER_S)
    assert desk.results() == ["hello"]


def test_a_crash_before_the_rename_publishes_at_the_next_start(desk: Desk) -> None:
    """The video in the staging folder is verified: it is published, not made again."""
    desk.add()
    desk.restart()
    desk.publisher.publish()
    assert desk.results() == ["hello"]
    assert desk.ledger.state_of("u1") == "done"


def test_a_job_cancelled_before_it_is_published_leaves_nothing(desk: Desk) -> None:
    """Its video waits for others to be published with: it is deleted, and the staging folder is empty."""
    desk.add(delay_s=10.0)
    desk.restart()
    desk.publisher.discard("u1")
    desk.publisher.discard("unknown")
    desk.publisher.publish()
    assert desk.results() == []
    assert desk.staged() == []


def test_several_results_are_published_and_filed_at_once(desk: Desk) -> None:
    """Jobs of one name that are due together: each gets a name of its own, its result and its place."""
    for n in range(5):
        desk.add(f"u{n}")
    desk.restart()
    desk.publisher.publish()
    desk.archiver.archive_inputs()
    assert desk.results() == ["hello", *(f"hello-{n}" for n in range(2, 6))]
    assert desk.ledger.list_unarchived(1) == []
    assert not list(desk.folders.claimed.iterdir())


def test_a_crash_after_the_rename_publishes_nothing_twice(desk: Desk) -> None:
    """The result is there with the job's uid: only the row is closed."""
    desk.add()
    desk.publisher.publish()
    set_columns(desk.ledger, "u1", state="running", stage="publish", run_token="token", finished_ms=None)
    desk.restart()
    desk.publisher.publish()
    assert desk.results() == ["hello"]
    assert desk.ledger.state_of("u1") == "done"


def test_a_crash_before_the_video_was_whole_starts_assembling_again(desk: Desk) -> None:
    """Without a video in the staging folder the job is queued, and its leftovers go."""
    desk.add()
    (desk.folders.staging / "u1-token" / "result.mp4").unlink()
    desk.restart()
    job = desk.job()
    assert (job.state, job.stage, job.result) == (JobState.QUEUED, "assemble", None)
    assert desk.staged() == []


def test_an_outbox_that_cannot_be_written_is_tried_again(desk: Desk) -> None:
    """The job waits and says why; when the outbox is back it is published."""
    desk.add()
    folder = desk.folders.outbox
    folder.rename(folder.with_name("away"))
    desk.publisher.publish()
    assert "outbox" in desk.problems["outbox"]
    assert desk.job().waiting_for == desk.problems["outbox"]
    folder.with_name("away").rename(folder)
    desk.clock.now = PUBLISH_RETRY_S
    desk.publisher.publish()
    assert desk.problems["outbox"] == ""
    assert desk.results() == ["hello"]
    assert desk.job().waiting_for is None


def test_a_rename_that_was_done_in_spite_of_an_error_is_seen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network share may lose only the answer: the job is closed, and nothing is published twice."""
    desk.add()
    real = outbox.move_result

    def lose_the_answer(staging: Path, target: Path) -> None:
        real(staging, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(outbox, "move_result", lose_the_answer)
    desk.publisher.publish()
    assert (desk.results(), desk.ledger.state_of("u1")) == (["hello"], "done")
    assert desk.publisher.pending == {}


def test_a_video_that_is_gone_is_assembled_again(desk: Desk) -> None:
    """The share came back without the staged video: the job goes back to its last stage."""
    desk.add()
    (desk.folders.staging / "u1-token" / "result.mp4").unlink()
    desk.publisher.publish()
    assert (desk.job().state, desk.job().stage, desk.job().waiting_for) == (JobState.QUEUED, "assemble", None)
    assert desk.publisher.pending == {}


def test_renames_that_may_be_lost_are_not_counted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the outbox can't be flushed the job stays open, and is closed when it can."""
    desk.add()
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "sync", refuse_to_flush)
        desk.publisher.publish()
    assert desk.ledger.state_of("u1") == "running"
    desk.clock.now = PUBLISH_RETRY_S
    desk.publisher.publish()
    assert desk.results() == [desk.job().result]
    assert desk.ledger.state_of("u1") == "done"


def refuse_to_flush(_path: Path) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_the_result_of_an_earlier_job_is_taken_over(desk: Desk) -> None:
    """A second job of the same id gets the same video, and its record says from where."""
    desk.add("u1")
    desk.publisher.publish()
    attempt = desk.start("u2")
    assert desk.publisher.add_copy(attempt, desk.job("u1"))
    desk.publisher.publish()
    record = json.loads((desk.folders.outbox / "hello-2" / "result.json").read_text())
    assert (record["from_cache"], record["cached_from"], record["uid"]) == (True, "hello", "u2")
    assert 'earlier job "hello"' in record["engine_reason"]
    (desk.folders.outbox / "hello" / "result.mp4").write_bytes(b"changed")
    assert not desk.publisher.add_copy(desk.start("u3"), desk.job("u1"))
    assert desk.publisher.pending == {}


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.ENOSPC, errno.ESTALE, errno.EACCES])
def test_an_outbox_that_fails_uses_up_no_attempt(desk: Desk, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The video waits in the staging folder, however often the rename fails."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    desk.add("u1")
    with monkeypatch.context() as patched:
        patched.setattr("agent.results.outbox.move", fail)
        for _ in range(8):
            desk.publisher.publish()
            assert os.strerror(number) in desk.problems["outbox"]
            desk.clock.now += PUBLISH_RETRY_S
    desk.publisher.publish()
    job = desk.job("u1")
    assert (job.state, job.attempt, job.failures) == ("done", 1, 0)


def test_a_result_that_cannot_be_copied_is_rendered_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails then ends neither the daemon nor the job."""
    desk.add("u1")
    desk.publisher.publish()
    monkeypatch.setattr("agent.results.outbox.make_folder", refuse_to_flush)
    assert not desk.publisher.add_copy(desk.start("u2"), desk.job("u1"))
    assert desk.publisher.pending == {}


def test_a_wish_to_cancel_outlives_the_daemon(desk: Desk) -> None:
    """A cancellation that was written down before the crash is carried out after it."""
    desk.ledger.transitions.request_cancel(desk.add())
    desk.restart()
    assert desk.ledger.state_of("u1") == "cancelled"


@pytest.mark.parametrize(("cancel", "state"), [(True, "cancelled"), (False, "queued")])
def test_what_a_job_waited_for_ends_with_its_daemon(desk: Desk, *, cancel: bool, state: str) -> None:
    """A job that waited for a device when the daemon was killed does not say so after the next start."""
    job = desk.start().job
    desk.ledger.update("u1", stage="render", waiting_for="it needs 9000 MiB of a card")
    if cancel:
        desk.ledger.transitions.request_cancel(job)
    desk.restart()
    assert desk.ledger.rows("SELECT state, waiting_for FROM job_status") == [{"state": state, "waiting_for": None}]


def test_results_of_a_batch_are_under_one_folder(desk: Desk) -> None:
    """outbox/monday/hello, and the row and result.json say so; a second one is hello-2 there."""
    for uid in ("u1", "u2"):
        attempt = desk.start(uid)
        spec = desk.job(uid).spec
        assert spec is not None
        desk.ledger.update(uid, spec=spec.model_copy(update={"batch": "monday"}).model_dump_json())
        attempt.job = desk.job(uid)
        desk.publisher.add(FinishedAttempt(attempt, {}))
    desk.publisher.publish()
    assert {desk.job(uid).result for uid in ("u1", "u2")} == {"monday/hello", "monday/hello-2"}
    assert desk.results() == ["monday"]
    record = json.loads((desk.folders.outbox / "monday" / "hello" / "result.json").read_text())
    assert record["result"] == "monday/hello"
    desk.restart()
    assert desk.job("u1").state is JobState.DONE
