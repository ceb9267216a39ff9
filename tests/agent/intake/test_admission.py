"""Admission: claims, pairs, refusals, media that come late, control files, retries, and claims after a crash."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from agent import clock
from agent.fs import Fingerprint
from agent.fs.folders import make_folders
from agent.intake import admission
from agent.intake.admission import Intake
from agent.intake.controls.commands import CancelJob, DrainDevice, ResumeDevice, UnloadDevice
from agent.intake.media import WRITTEN
from agent.jobs.queue_order import sort_by_turn
from agent.jobs.states import JobState
from agent.ledger.job import Job
from agent.results import outbox
from agent.settings import CurrentSettings
from tests.agent.intake.desk import SETTINGS, Desk, a_settings
from tests.agent.samples import ERROR, start_job

BROKEN = b"{ not json"

# new jobs ------------------------------------------------------------------------------------------------------------


def test_a_job_file_with_its_media_is_queued(desk: Desk) -> None:
    """The job file is claimed, its media stay in the inbox, and the row knows both as they are."""
    desk.drop("hello", id="k-1", priority="high")
    desk.drop_media()
    desk.turn()
    job = desk.job("hello")
    assert (job.state, job.client_id, job.priority, job.created_ms) == (JobState.QUEUED, "k-1", 10, desk.at_ms)
    assert job.submitter == f"uid:{os.getuid()}"
    assert job.media["audio"]["path"] == str(desk.folders.inbox / "voice.wav")
    assert job.media["avatar"]["size"] == len(b"media")
    assert desk.inbox_names() == ["face.jpg", "voice.wav"]
    assert desk.claimed_names(job) == ["hello.json"]


def test_the_job_names_its_submitter(desk: Desk) -> None:
    """Where the job file says who asks, the owner of the file doesn't count."""
    desk.drop("hello", submitter="anna")
    desk.turn()
    assert desk.job("hello").submitter == "anna"


def test_a_pair_is_claimed_whole(desk: Desk) -> None:
    """Both media leave the inbox, and the job reads them from its own folder."""
    desk.put("hello.jpg")
    desk.put("hello.wav")
    desk.turn()
    assert desk.names() == []
    desk.turn(wait_s=1.0)
    job = desk.job("hello")
    assert job.state is JobState.QUEUED
    assert desk.inbox_names() == []
    assert Path(job.media["avatar"]["path"]).parent == desk.folders.claimed / job.uid
    assert job.spec is not None
    assert "hello.json" in job.spec.notes[0]


def test_media_of_a_job_are_no_pair(desk: Desk) -> None:
    """A face and a voice of one stem that a job has named are not claimed a second time."""
    desk.drop("talk", avatar="hello.jpg", audio="hello.wav")
    desk.put("hello.jpg")
    desk.put("hello.wav")
    desk.turn()
    desk.turn(wait_s=5.0)
    assert desk.names() == ["talk"]
    assert desk.inbox_names() == ["hello.jpg", "hello.wav"]


def test_a_broken_job_file_is_refused_when_it_has_settled(desk: Desk) -> None:
    """It becomes a failed row with the code and the hint; the file is kept beside the claim."""
    desk.put("hello.json", BROKEN, settled=False)
    desk.turn()
    assert desk.names() == []
    desk.turn(wait_s=1.0)
    job = desk.job("hello")
    assert (job.state, job.error_code, job.spec) == (JobState.FAILED, "not_json", None)
    assert job.error_hint
    assert desk.claimed_names(job) == ["hello.json"]


def test_a_whole_job_file_that_is_wrong_is_refused_at_once(desk: Desk) -> None:
    """Only text that may still be growing is waited for."""
    desk.drop("hello", colour="red")
    desk.turn()
    assert desk.job("hello").error_code == "unknown_key"


@pytest.mark.parametrize(
    ("longest_s", "expected"),
    [(0.0, [(2, True), (4, True), (5, False), (5, False)]), (60.0, [(5, False)] * 4)],
    ids=["slow", "fast"],
)
def test_a_flood_of_files_is_taken_in_batches(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, longest_s: float, expected: list[tuple[int, bool]]
) -> None:
    """Each turn claims one batch, and goes on as long as that is quick; the next scan is due at once for the rest."""
    monkeypatch.setattr(admission, "BATCH", 2)
    monkeypatch.setattr(admission, "LONGEST_CLAIM_S", longest_s)
    desk.drop_media()
    for name in "abcde":
        desk.drop(name)
    counts = []
    for _ in range(4):
        desk.turn()
        counts.append((len(desk.names()), desk.intake.is_scan_due(desk.now_s)))
    assert counts == expected


# media that come late ------------------------------------------------------------------------------------------------


def test_a_job_waits_for_its_media(desk: Desk) -> None:
    """What is missing is said in `waiting_for`; when the last file has settled, the job is queued."""
    desk.drop("hello")
    desk.put("face.jpg")
    desk.turn()
    assert desk.job("hello").waiting_for == 'audio "voice.wav" has not arrived in the inbox'
    desk.put("voice.wav", settled=False)
    desk.turn(wait_s=1.0)
    assert (
        desk.job("hello").waiting_for
        == 'audio "voice.wav" has arrived, and is taken as soon as it is known to be complete'
    )
    desk.turn(wait_s=1.0)
    job = desk.job("hello")
    assert (job.state, job.waiting_for, job.queued_ms) == (JobState.QUEUED, None, desk.at_ms)


def test_media_that_do_not_come_fail_the_job(desk: Desk) -> None:
    """After inbox.wait_media_s the job fails with what is missing and what to do."""
    desk.drop("hello")
    desk.turn()
    desk.turn(wait_s=60.0)
    assert desk.job("hello").state is JobState.WAITING
    desk.turn(wait_s=0.1)
    job = desk.job("hello")
    assert (job.state, job.error_code, job.waiting_for) == (JobState.FAILED, "missing_media", None)
    assert "musedrop retry" in (job.error_hint or "")


def test_media_outside_the_folders_fail_the_job(desk: Desk) -> None:
    """A path that no job may read is refused, not waited for."""
    desk.drop_media()
    desk.drop("hello", audio="/etc/passwd")
    desk.turn()
    assert desk.job("hello").error_code == "outside_roots"


def test_a_second_job_of_an_id_waits_for_the_first(desk: Desk) -> None:
    """Its turn comes when the first has ended, since it may get the first one's result."""
    desk.drop_media()
    desk.drop("one", id="k-1")
    desk.turn()
    desk.drop("two", id="k-1")
    desk.turn(wait_s=1.0)
    assert desk.job("two").waiting_for == 'the job "one" of the same id'
    desk.ledger.transitions.cancel(desk.job("one"), at_ms=desk.at_ms)
    desk.turn(wait_s=1.0)
    assert desk.job("two").state is JobState.QUEUED


def test_waiting_jobs_are_checked_in_batches(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scan looks for the media of the next jobs, and begins again after the last."""
    for name in "abcde":
        desk.drop(name)
    desk.turn()
    monkeypatch.setattr(admission, "BATCH", 2)
    desk.drop_media()
    queued = []
    for _ in range(4):
        desk.turn()
        queued.append(desk.ledger.count(JobState.QUEUED))
    assert queued == [2, 4, 5, 5]


def test_an_avatar_of_the_library_may_be_old_and_must_not_be_new(desk: Desk) -> None:
    """Outside the inbox there is no scan: the age of the file tells whether it has settled."""
    desk.put("voice.wav")
    desk.add_avatar("anna.png")
    (desk.folders.avatars / "bert.png").write_bytes(b"avatar")
    desk.drop("old", avatar="anna")
    desk.drop("new", avatar="bert")
    desk.turn()
    assert desk.job("old").state is JobState.QUEUED
    assert (
        desk.job("new").waiting_for == 'avatar "bert" has arrived, and is taken as soon as it is known to be complete'
    )


# control files -------------------------------------------------------------------------------------------------------


def test_a_cancel_file_asks_for_the_end_of_a_job(desk: Desk) -> None:
    """The row notes the request, the daemon gets a command, and the file goes when that is carried out."""
    desk.drop("hello")
    desk.turn()
    path = desk.put("hello.cancel", b"")
    desk.intake.scan(desk.now_s)
    commands = desk.intake.run_controls(desk.at_ms)
    command = next(commands)
    assert isinstance(command, CancelJob)
    assert command.job.name == "hello"
    assert desk.job("hello").cancel_requested
    assert path.exists()
    assert list(commands) == []
    assert not path.exists()


def test_a_cancel_that_comes_before_its_pair_is_whole(desk: Desk) -> None:
    """It waits for the job; without one it goes when the files have been there for the settle time and the patience."""
    desk.put("hello.jpg", settled=False)
    desk.put("hello.wav", settled=False)
    desk.put("hello.cancel", b"")
    assert desk.turn() == []
    assert "hello.cancel" in desk.inbox_names()
    commands = [command for wait_s in (2.0, 1.0) for command in desk.turn(wait_s)]
    assert [type(command) for command in commands] == [CancelJob]
    assert desk.inbox_names() == []
    desk.put("alone.jpg")
    desk.put("alone.cancel", b"")
    for wait_s in (0.0, 20.0):
        desk.turn(wait_s)
    assert "alone.cancel" not in desk.inbox_names()


def test_control_files_of_unknown_jobs_are_removed(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """They ask for nothing that can be done; the log says so."""
    desk.put("nobody.cancel", b"")
    desk.put("nobody.retry", b"")
    assert desk.turn() == []
    assert desk.inbox_names() == []
    assert [record.message.partition(":")[0] for record in caplog.records] == ["nothing to cancel", "nothing to retry"]


def test_devices_are_drained_and_resumed_by_name(desk: Desk) -> None:
    """DEVICE.drain, DEVICE.resume and DEVICE.unload become commands for the scheduler."""
    desk.put("cpu-0.drain", b"")
    desk.put("gpu-5e1f.resume", b"")
    assert desk.turn() == [DrainDevice("cpu-0"), ResumeDevice("gpu-5e1f")]
    desk.put("gpu-5e1f.unload", b"")
    assert desk.turn() == [UnloadDevice("gpu-5e1f")]
    assert desk.inbox_names() == []


@pytest.mark.parametrize("suffix", ["", ".txt"])
def test_the_queue_is_paused_until_it_is_resumed(desk: Desk, suffix: str) -> None:
    """The ledger remembers the pause, so that a new daemon keeps it."""
    desk.put(f"pause{suffix}", b"")
    assert desk.turn() == []
    assert desk.intake.is_paused
    desk.open()
    assert desk.intake.is_paused
    desk.put(f"resume{suffix}", b"")
    desk.turn()
    assert not desk.intake.is_paused
    assert desk.inbox_names() == []


# retries -------------------------------------------------------------------------------------------------------------


def fail_job(desk: Desk, name: str) -> Job:
    """Let a queued job fail, and file its inputs away as the daemon does."""
    job = start_job(desk.ledger, desk.job(name), "token", at_ms=desk.at_ms)
    desk.ledger.transitions.fail(job, ERROR, at_ms=desk.at_ms)
    target = desk.folders.failed / name
    outbox.move_failed_inputs(desk.folders.claimed / job.uid, target, {"code": ERROR.code}, "{}")
    desk.ledger.update(job.uid, inputs=str(target), tidied=1)
    return desk.job(name)


def test_a_retry_brings_the_inputs_back(desk: Desk) -> None:
    """The job is queued again from its first stage, with the media that are there now."""
    desk.drop_media()
    desk.drop("hello")
    desk.turn()
    job = fail_job(desk, "hello")
    assert (desk.folders.failed / "hello" / "error.json").exists()
    desk.put("hello.retry", b"")
    desk.turn(wait_s=1.0)
    again = desk.job("hello")
    assert (again.uid, again.state, again.stage, again.error_code) == (job.uid, JobState.QUEUED, "inspect", None)
    assert desk.claimed_names(again) == ["job.json"]
    assert not (desk.folders.failed / "hello").exists()


def test_a_retry_finds_what_was_filed_away_with_another_job(desk: Desk) -> None:
    """A face that several jobs named is put back into the inbox; the job that has it now keeps it, too."""
    desk.drop_media()
    desk.drop("hello")
    desk.turn()
    fail_job(desk, "hello")
    filed = desk.folders.archive / "2026-01-01" / "other" / "face.jpg"
    make_folders([filed.parent])
    (desk.folders.inbox / "face.jpg").rename(filed)
    desk.ledger.note_moved_medium(desk.folders.inbox / "face.jpg", filed)
    desk.put("hello.retry", b"")
    for _ in range(3):
        desk.turn(wait_s=1.0)
    assert desk.job("hello").state is JobState.QUEUED
    assert filed.read_bytes() == (desk.folders.inbox / "face.jpg").read_bytes()


def test_a_retry_reads_the_job_file_again(desk: Desk) -> None:
    """What the user corrected in failed/NAME/job.json counts."""
    desk.drop_media()
    desk.drop("hello")
    desk.turn()
    fail_job(desk, "hello")
    edited = {"avatar": "face.jpg", "audio": "voice.wav", "priority": 7, "engine": "preview"}
    (desk.folders.failed / "hello" / "job.json").write_text(json.dumps(edited))
    desk.put("hello.retry", b"")
    desk.turn(wait_s=1.0)
    job = desk.job("hello")
    assert (job.state, job.priority, job.engine_asked) == (JobState.QUEUED, 7, "preview")


def test_a_retry_may_bring_another_job_file(desk: Desk) -> None:
    """What NAME.retry holds takes the place of the job file, also in failed/ if it fails again."""
    desk.drop_media()
    desk.drop("hello")
    desk.turn()
    fail_job(desk, "hello")
    edited = json.dumps({"avatar": "face.jpg", "audio": "voice.wav", "priority": 9}).encode()
    desk.put("hello.retry", edited[:20], settled=False)
    desk.turn()
    assert desk.job("hello").state is JobState.FAILED
    desk.put("hello.retry", edited)
    desk.turn(wait_s=1.0)
    job = desk.job("hello")
    assert (job.state, job.priority) == (JobState.QUEUED, 9)
    assert (desk.folders.claimed / job.uid / "job.json").read_bytes() == edited
    fail_job(desk, "hello")
    desk.put("hello.retry", b'{"avatar": 1}')
    desk.turn(wait_s=1.0)
    assert desk.job("hello").state is JobState.FAILED
    assert desk.job("hello").error_code != job.error_code


def test_a_job_is_moved_to_the_front(desk: Desk) -> None:
    """The last one that was moved is the first, however long others have waited; other words set their levels."""
    desk.drop_media()
    for name in ("a", "b", "c", "d"):
        desk.drop(name, priority=100 if name == "a" else 0)
        desk.turn(wait_s=1.0)
    desk.now_s += 5 * 86400
    for name in ("c.front", "b.front", "d.high"):
        desk.put(name, b"")
        desk.turn(wait_s=1.0)
    rows = desk.ledger.queue.list_first(desk.at_ms, 10)
    assert [row["name"] for row in rows[:2]] == ["b", "c"]
    ready = sort_by_turn(desk.ledger.queue.list_ready(desk.at_ms, 10), desk.ledger.queue.served_ms(), desk.at_ms)
    assert [job.name for job in desk.ledger.list_by_turn(ready)][:2] == ["b", "c"]
    assert [desk.job(name).priority for name in ("d", "a")] == [10, 100]
    assert desk.inbox_names() == ["face.jpg", "voice.wav"]


def test_a_retry_of_a_job_file_that_is_still_wrong(desk: Desk) -> None:
    """The job stays failed, with the error of the file as it is now, and is filed away anew."""
    desk.put("hello.json", BROKEN, settled=False)
    desk.turn()
    desk.turn(wait_s=1.0)
    job = desk.job("hello")
    outbox.move_failed_inputs(desk.folders.claimed / job.uid, desk.folders.failed / "hello", {}, "{}")
    desk.ledger.update(job.uid, inputs=str(desk.folders.failed / "hello"), tidied=1)
    (desk.folders.failed / "hello" / "job.json").write_bytes(b"[]")
    desk.put("hello.retry", b"")
    desk.turn(wait_s=1.0)
    job = desk.job("hello")
    assert (job.state, job.error_code, job.inputs) == (JobState.FAILED, "not_an_object", None)
    assert desk.ledger.list_unarchived(10) == [job]


def test_a_retry_after_the_inputs_were_deleted(desk: Desk) -> None:
    """Where no file of the job is left, the answer is inputs_gone; where its media are elsewhere, it is queued."""
    desk.drop_media()
    for name in ("lost", "kept"):
        desk.drop(name)
        desk.turn()
        fail_job(desk, name)
        shutil.rmtree(desk.folders.failed / name)
    desk.put("kept.retry", b"")
    desk.turn(wait_s=1.0)
    assert desk.job("kept").state is JobState.QUEUED
    (desk.folders.inbox / "voice.wav").unlink()
    desk.put("lost.retry", b"")
    desk.turn(wait_s=1.0)
    job = desk.job("lost")
    assert (job.state, job.error_code) == (JobState.FAILED, "inputs_gone")
    assert "drop the job file" in (job.error_hint or "")


# a crash, and a share that comes and goes ----------------------------------------------------------------------------


def test_claims_without_a_row_are_inserted_after_a_crash(desk: Desk) -> None:
    """A crash between claim and row loses no job, makes none twice, and gives half a pair back."""
    desk.drop_media()
    desk.drop("known")
    desk.turn()
    desk.drop("hello")
    desk.drop("wrong", colour="red")
    assert desk.intake.inbox.scan(desk.now_s)
    for candidate in list(desk.intake.inbox.find_candidates(desk.now_s, set)):
        assert desk.intake.inbox.claim(candidate, f"uid-{candidate.name}") is not None
    half = desk.folders.claimed / "uid-half"
    half.mkdir()
    (half / "half.jpg").write_bytes(b"media")
    desk.open()
    assert desk.intake.scan(desk.now_s)
    desk.intake.recover_claims(desk.at_ms)
    assert desk.names() == ["hello", "known", "wrong"]
    assert desk.job("hello").uid == "uid-hello"
    assert desk.job("wrong").error_code == "unknown_key"
    assert "half.jpg" in desk.inbox_names()
    desk.intake.recover_claims(desk.at_ms)
    assert desk.names() == ["hello", "known", "wrong"]


def test_rows_of_one_turn_are_inserted_together(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one of them can't be written, none is; the claims are there for the next attempt."""
    desk.drop_media()
    desk.drop("one")
    desk.drop("two")
    insert = desk.intake.insert

    def insert_one_and_fail(*arguments: object) -> None:
        if desk.names():
            raise OSError("the disk is full")
        insert(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(desk.intake, "insert", insert_one_and_fail)
    with pytest.raises(OSError, match="full"):
        desk.turn()
    assert desk.names() == []
    monkeypatch.undo()
    desk.intake.recover_claims(desk.at_ms)
    assert desk.names() == ["one", "two"]


def test_an_inbox_that_can_not_be_read_is_scanned_again(desk: Desk) -> None:
    """The scan says so, and the next one comes after the usual period."""
    shutil.rmtree(desk.folders.inbox)
    assert not desk.intake.scan(10.0)
    assert "can't be read" in desk.intake.inbox.problem
    assert desk.intake.next_scan_s == 15.0


def test_a_scan_is_postponed_while_the_share_is_away(desk: Desk) -> None:
    """It counts as a scan, so that the watchdog is fed."""
    desk.intake.postpone_scan(20.0)
    assert (desk.intake.last_scan_s, desk.intake.next_scan_s) == (20.0, 25.0)
    assert not desk.intake.is_scan_due(24.9)
    assert desk.intake.is_scan_due(25.0)


def test_a_file_event_makes_the_next_scan_come_sooner(desk: Desk) -> None:
    """A burst of events causes one scan, 20 ms after the last."""
    desk.intake.scan(30.0)
    assert desk.intake.next_scan_s == 35.0
    desk.intake.watcher.touched = True
    assert desk.intake.next_scan_s == pytest.approx(30.02)


def test_the_next_scan_comes_when_a_file_may_have_settled(desk: Desk) -> None:
    """Not only after the usual period."""
    desk.put("face.jpg", settled=False)
    desk.intake.scan(40.0)
    assert desk.intake.next_scan_s == 41.0


@pytest.mark.parametrize(
    ("watch", "kind", "polls", "settle_s"),
    [
        ("auto", "ext4", False, 1.0),
        ("auto", "cifs", True, 7.0),
        ("events", "cifs", False, 7.0),
        ("poll", "ext4", True, 1.0),
    ],
)
def test_the_file_system_decides_between_events_and_polling(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: str, kind: str, polls: bool, settle_s: float
) -> None:
    """A network share sends no events, and its files take longer to settle; the settings may say otherwise."""
    monkeypatch.setattr(admission, "find_filesystem_kind", lambda _path: kind)
    settings = a_settings(tmp_path, SETTINGS.replace('"poll"', f'"{watch}"'))
    intake = Intake(CurrentSettings(settings), desk.ledger, lambda: None)
    intake.meet_share()
    assert (intake.polls, intake.inbox.settle_s) == (polls, settle_s)
    assert intake.scan(0.0)
    assert intake.watcher.is_alive is not polls
    intake.watcher.stop()


def test_reloaded_settings_apply_at_the_next_scan(desk: Desk, tmp_path: Path) -> None:
    """The limit of a job file and the folders of media; the next scan is due at once."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "voice.wav").write_bytes(b"media")
    os.utime(tmp_path / "far" / "voice.wav", (1_600_000_000, 1_600_000_000))
    desk.put("face.jpg")
    desk.turn()
    text = SETTINGS + f'media_roots = ["{tmp_path / "far"}"]\nmax_job_bytes = 1024\n'
    desk.intake.settings.replace(a_settings(tmp_path, text))
    desk.intake.apply_settings()
    assert desk.intake.is_scan_due(desk.now_s)
    desk.drop("near", audio=str(tmp_path / "far" / "voice.wav"))
    desk.put("large.json", b"{" + b" " * 1024)
    desk.turn()
    assert desk.job("near").state is JobState.QUEUED
    assert desk.job("large").error_code == "too_big"


# many waiting jobs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def costly(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Five jobs wait, and to look at all of them takes so long that it may not be done again for an hour."""
    for name in "abcde":
        desk.drop(name, avatar=f"{name}.jpg", audio=f"{name}.wav")
    desk.turn()
    monkeypatch.setattr(clock, "FEW", 0)
    monkeypatch.setattr(clock, "SHARE", 1e-9)
    desk.turn()
    return desk


def test_a_medium_that_comes_is_looked_for_at_once(costly: Desk) -> None:
    """Only the jobs that name it are looked at, whatever the spelling."""
    costly.put("C.JPG")
    costly.put("c.wav")
    costly.turn()
    assert [name for name in "abcde" if costly.job(name).state is JobState.QUEUED] == ["c"]


def test_a_medium_that_is_being_written_is_looked_at_until_it_is_whole(costly: Desk) -> None:
    """Its job has its turn in each scan, though nothing else changes."""
    costly.put("d.jpg", settled=False)
    costly.put("d.wav")
    costly.turn()
    assert costly.job("d").waiting_for == f'avatar "d.jpg" {WRITTEN}'
    costly.turn(wait_s=0.5)
    assert costly.job("d").state is JobState.WAITING
    costly.turn(wait_s=1.0)
    assert costly.job("d").state is JobState.QUEUED


def test_an_avatar_of_the_library_is_seen_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the library's folder makes all waiting jobs be looked at, a batch in each turn."""
    for name in "abcde":
        desk.drop(name, avatar="anna", audio="voice.wav")
    desk.put("voice.wav")
    desk.turn()
    monkeypatch.setattr(clock, "FEW", 0)
    monkeypatch.setattr(clock, "SHARE", 1e-9)
    monkeypatch.setattr(admission, "BATCH", 2)
    desk.turn()
    desk.add_avatar("anna.jpg")
    queued = []
    for _ in range(4):
        desk.turn()
        queued.append(desk.ledger.count(JobState.QUEUED))
    assert queued == [2, 4, 5, 5]


def test_jobs_of_one_turn_share_what_was_found(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A medium that many jobs name is looked at once in a turn, and again in the next."""
    looks = list[str]()
    take = desk.intake.take_settled

    def note(name: str) -> Fingerprint | None:
        looks.append(name)
        return take(name)

    monkeypatch.setattr(desk.intake, "take_settled", note)
    desk.drop_media()
    for name in "abc":
        desk.drop(name)
    desk.turn()
    assert [desk.job(name).state for name in "abc"] == [JobState.QUEUED] * 3
    assert looks == ["face.jpg", "voice.wav"]
    desk.drop("d")
    desk.turn()
    assert looks == ["face.jpg", "voice.wav"] * 2


def test_what_a_waiting_job_has_found_is_no_half_of_a_pair(desk: Desk) -> None:
    """The face stays for the waiting job and for others that name it, and the voice beside it is told of."""
    desk.drop("early", avatar="anna.jpg", audio="late.wav")
    desk.turn()
    for name in ("anna.jpg", "anna.wav", "voice.wav"):
        desk.put(name)
    desk.turn(wait_s=0.0)
    desk.drop("later", avatar="anna.jpg")
    desk.turn(wait_s=1.0)
    assert sorted(desk.names()) == ["early", "later"]
    assert [desk.job(name).state for name in ("early", "later")] == [JobState.WAITING, JobState.QUEUED]
    desk.turn(wait_s=desk.settings.inbox.patience_s + 1)
    desk.intake.refuse_others(desk.at_ms)
    assert '"anna.wav" (the other file of that name belongs to a job that names it)' in desk.intake.ignored.texts[0]


# media of jobs that will not run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b'{"avatar": "face.jpg", "audio": "./voice.wav", "prioritaet": 1}',
        b'{"AvatarImagePath": "face.jpg", "AudioPath": "voice.wav", "Quality": "Gut"}',
        b'{"avatar": "face.jpg", "audio": "voice.wav",}',
    ],
)
def test_the_media_of_a_refused_job_follow_it(desk: Desk, text: bytes) -> None:
    """Its row knows the files in the inbox that it names, however it is refused, so that they leave the inbox."""
    desk.drop_media()
    desk.put("hello.json", text)
    desk.turn()
    desk.turn(wait_s=20.0)
    job = desk.job("hello")
    assert job.state is JobState.FAILED
    assert {role: Path(medium["path"]).name for role, medium in job.media.items()} == {
        "avatar": "face.jpg",
        "audio": "voice.wav",
    }


def test_the_half_that_came_follows_a_job_whose_other_half_did_not(desk: Desk) -> None:
    """A job that has waited too long takes along what was there for it."""
    desk.drop("hello")
    desk.put("face.jpg")
    desk.turn()
    desk.turn(wait_s=61.0)
    assert desk.job("hello").state is JobState.FAILED
    assert list(desk.job("hello").media) == ["avatar"]


def test_a_refused_job_takes_nothing_from_elsewhere(desk: Desk) -> None:
    """Paths out of the inbox, links and files that are not there are no media of a refused job."""
    (desk.folders.inbox / "link.jpg").symlink_to("/proc/version")
    desk.put("hello.json", b'{"avatar": "link.jpg", "audio": "../../secret.wav", "x": 1}')
    desk.put("other.json", b'{"avatar": "/proc/version", "audio": "gone.wav", "x": 1}')
    desk.turn()
    assert (desk.job("hello").media, desk.job("other").media) == ({}, {})


def test_the_nearest_avatar_is_named(desk: Desk) -> None:
    """A job that waits for a name of the library says which one may be meant."""
    desk.add_avatar("Anna.mp4")
    desk.drop("hello", avatar="ana")
    desk.drop("other", avatar="zacharias")
    desk.turn()
    assert str(desk.job("hello").waiting_for).endswith("; did you mean Anna?")
    assert str(desk.job("other").waiting_for).endswith("no avatar of that name")


def test_a_draft_is_marked_as_one(desk: Desk) -> None:
    """It is of the preview engine, has the submitter of all drafts, and no scene."""
    desk.drop_media()
    desk.drop("look", engine="musetalk", from_s=2, submitter="anna", options={"draft": True})
    desk.turn()
    job = desk.job("look")
    assert (job.submitter, job.engine_asked, job.spec and job.spec.from_s) == ("draft", "preview", None)
    assert desk.ledger.retention.list_ended_drafts(desk.at_ms) == []
    desk.ledger.transitions.cancel(job, at_ms=desk.at_ms)
    desk.ledger.update(job.uid, tidied=1, swept=1)
    assert desk.ledger.retention.list_ended_drafts(desk.at_ms + 1) == [job.uid]
