"""Failures of the disks are the trouble of the share and count as no attempt; the rights of a file are its job's."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.scheduler.disk_faults import OWN_FAULTS, describe_disk_fault
from gpu_pool.types import Failed, RunSpan
from tests.agent.simulation import Simulation, cpus, fails
from tests.gpu_pool.fake import Message


@pytest.fixture
def simulation(tmp_path: Path) -> Iterator[Simulation]:
    made = Simulation(tmp_path, cpus(1))
    yield made
    made.close()


def fail_with(simulation: Simulation, number: int, path: str, times: int, stage: str = "inspect") -> None:
    """Let the next spans of a stage of the job "hello" end with an error of the system."""
    left = [OSError(number, os.strerror(number), path)] * times

    def story(_device: str, name: str, order: RunSpan) -> list[tuple[float, Message]] | None:
        if not left or name != "hello" or order.payload["stage"] != stage:
            return None
        error = left.pop()
        return [(0.1, Failed(order.task, order.start, order.stop, "internal", f"OSError: {error}", retry=True))]

    simulation.story = story


@pytest.mark.parametrize("stage", ["inspect", "prepare", "render", "assemble"])
@pytest.mark.parametrize(
    "number", [errno.EIO, errno.EDQUOT, errno.ENOSPC, errno.ESTALE, errno.EROFS, errno.EACCES, errno.ENOTCONN]
)
def test_a_fault_of_the_share_counts_as_no_attempt(simulation: Simulation, number: int, stage: str) -> None:
    """However often it comes, in whatever stage: the job waits, says why, and is done when the share works again."""
    fail_with(simulation, number, str(simulation.settings.folders.staging / "x"), times=8, stage=stage)
    simulation.add("hello")
    simulation.run(lambda: simulation.row("hello")["attempt"] == 6)
    simulation.run(lambda: simulation.row("hello")["state"] == "queued")
    assert os.strerror(number) in simulation.row("hello")["waiting_for"]
    assert os.strerror(number) in simulation.dispatcher.disk_fault
    simulation.finish(1)
    assert simulation.dispatcher.disk_fault == ""
    assert simulation.row("hello")["state"] == "done"
    [failures] = simulation.ledger.db.execute("SELECT failures FROM jobs").fetchone()
    assert failures == 0


MARK = {"inode": 1, "size": 1, "mtime_ns": 1}
MEDIA = {role: {"given": f"{role}.x", "path": path, **MARK} for role, path in (("avatar", "face"), ("audio", "voice"))}


def test_a_medium_that_may_not_be_read_fails_its_job(simulation: Simulation) -> None:
    """At once, with a code and a hint, and no other job waits."""
    fail_with(simulation, errno.EACCES, "voice", times=1)
    simulation.add_with("hello", MEDIA)
    simulation.run(lambda: simulation.row("hello")["state"] == "failed")
    row = simulation.row("hello")
    assert (row["error_code"], row["attempt"]) == ("not_readable", 1)
    assert row["error_message"] == 'audio "audio.x" can\'t be read: Permission denied'
    assert "chmod" in row["error_hint"]


def test_a_folder_of_media_that_is_closed_is_waited_for(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rights of a mount or of the inbox are no fault of the job."""
    monkeypatch.setattr("agent.scheduler.disk_faults.can_search", lambda _: False)
    fail_with(simulation, errno.EACCES, "voice", times=6)
    simulation.add_with("hello", MEDIA)
    simulation.run(lambda: simulation.row("hello")["attempt"] == 4)
    assert "Permission denied: voice" in simulation.dispatcher.disk_fault
    simulation.finish(1)


def test_bad_sectors_under_a_medium_are_named_and_become_the_jobs_when_others_are_done(simulation: Simulation) -> None:
    """Alone it waits, since the disk may come back; a job that fails between others that work blocks nothing."""
    fail_with(simulation, errno.EIO, "voice", times=1000)
    simulation.add_with("hello", MEDIA)
    simulation.run(lambda: simulation.row("hello")["attempt"] == 10)
    simulation.run(lambda: simulation.row("hello")["state"] == "queued")
    assert "Input/output error: voice" in simulation.row("hello")["waiting_for"]
    for number in range(OWN_FAULTS):
        before = simulation.row("hello")["attempt"]
        simulation.add(f"good{number}")
        simulation.run(lambda: f"good{number}" in simulation.done)  # noqa: B023 - called in this round
        simulation.run(lambda: simulation.row("hello")["attempt"] > before)  # noqa: B023 - the same
        simulation.run(lambda: simulation.row("hello")["state"] != "running")
    assert simulation.row("hello")["state"] == "failed"
    assert simulation.row("hello")["error_code"] == "not_readable"
    assert simulation.row("hello")["error_message"] == 'audio "audio.x" can\'t be read: Input/output error'
    assert simulation.dispatcher.disk_fault == ""


def test_a_work_folder_that_cannot_be_made_is_waited_for(simulation: Simulation) -> None:
    """The daemon goes on, and the job starts when the folder can be made."""
    job = simulation.add("hello")
    work = simulation.settings.folders.work / job.uid
    work.parent.mkdir(parents=True, exist_ok=True)
    work.write_text("in the way")
    simulation.step()
    assert "File exists" in simulation.row("hello")["waiting_for"]
    work.unlink()
    simulation.finish(1)


@pytest.mark.parametrize(
    "text",
    [
        "PermissionError: [Errno 13] Permission denied: '/usr/lib/weights.bin'",
        "FileNotFoundError: [Errno 2] No such file or directory: 'x'",
        "RuntimeError: boom",
    ],
)
def test_what_is_no_fault_of_the_disks(simulation: Simulation, text: str) -> None:
    """Defects, and files that are not the share's, are as before."""
    failed = Failed("t", 0, 1, "internal", text, retry=True)
    assert describe_disk_fault(failed, simulation.settings.folders) == ""


def test_an_error_that_a_worker_has_explained_is_the_jobs(simulation: Simulation) -> None:
    """A damaged medium may give the same error number."""
    order = RunSpan("t", 0, 1, {})
    failed = fails(order, "audio_unreadable", detail="OSError: [Errno 5] Input/output error")
    assert isinstance(failed, Failed)
    assert describe_disk_fault(failed, simulation.settings.folders) == ""


@pytest.mark.parametrize("said", ["RuntimeError: can't start new thread", f"OSError: {OSError(errno.EAGAIN, 'no')}"])
def test_a_machine_without_threads_is_waited_for(simulation: Simulation, said: str) -> None:
    """A limit of processes is no fault of a job: no attempt counts, the problem is named, and the job is done then."""
    left = [said] * 8

    def story(_device: str, _name: str, order: RunSpan) -> list[tuple[float, Message]] | None:
        message = left.pop() if left else ""
        end = Failed(order.task, order.start, order.stop, "internal", message, retry=True)
        return [(0.1, end)] if message else None

    simulation.story = story
    simulation.add("hello")
    simulation.run(lambda: simulation.row("hello")["attempt"] == 6)
    simulation.run(lambda: simulation.row("hello")["state"] == "queued")
    assert "no further thread or process" in simulation.row("hello")["waiting_for"]
    assert simulation.dispatcher.disk_fault.startswith("jobs wait, the machine has no further thread")
    simulation.finish(1)
    [failures] = simulation.ledger.db.execute("SELECT failures FROM jobs").fetchone()
    assert (simulation.row("hello")["state"], failures, simulation.dispatcher.disk_fault) == ("done", 0, "")
