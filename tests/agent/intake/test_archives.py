"""A zip in the inbox: unpacked by a program, it becomes a folder of the inbox; anything else of it is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.errors import ErrorCode
from agent.fs import discard, open_regular
from agent.fs.folders import hold_folder
from agent.intake import archives, unpack
from agent.intake.archives import LONGEST_S, ZipFiles
from agent.jobs.spec import AUDIO_SUFFIXES
from agent.jobs.states import JobState
from agent.settings import Settings
from tests.agent.intake.desk import Desk
from tests.agent.intake.test_unpack import pack

JOB = b'{"avatar": "in/face.jpg", "audio": "voice.wav"}'
REST_S = 3.0


class Program:
    """The program, run in this process; `exit_code` None: it goes on for ever."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code, self.is_killed = exit_code, False

    def kill(self) -> None:
        self.is_killed = True


class Starter:
    """Starts programs; `exit_code` takes the place of what they do."""

    def __init__(self) -> None:
        self.exit_code: int | None = 0
        self.is_real = True
        self.programs: list[Program] = []

    def __call__(self, settings: Settings, archive: Path, folder: Path, is_avatar: bool) -> Program:
        if self.is_real:
            bounds = unpack.Bounds(1 << 30, int(settings.limits.archive_gib * 2**30))
            with hold_folder(folder) as fd, os.fdopen(open_regular(archive), "rb") as file:
                self.exit_code = unpack.run(file, fd, bounds, AUDIO_SUFFIXES, is_avatar=is_avatar)
        self.programs.append(Program(self.exit_code))
        return self.programs[-1]


@pytest.fixture
def starter(desk: Desk) -> Starter:
    made = Starter()
    desk.intake.zips.start = made
    return made


def pass_turns(desk: Desk) -> None:
    for _ in range(4):
        desk.turn(wait_s=REST_S)
        desk.intake.refuse_others(desk.at_ms)


@pytest.mark.parametrize("is_started", [True, False])
def test_an_archive_that_cannot_be_taken_leaves_nothing_behind(
    desk: Desk, starter: Starter, monkeypatch: pytest.MonkeyPatch, is_started: bool
) -> None:
    """Immutable, or no process can be started: it is tried again for ever, and no try may leave its files behind."""

    def refuse(*_: object) -> Program:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if is_started:
        monkeypatch.setattr(archives, "move", refuse)
    else:
        desk.intake.zips.start = refuse
    desk.put("monday.zip", pack(("one.json", JOB)))
    pass_turns(desk)
    assert len(starter.programs) == is_started
    assert desk.inbox_names() == ["monday.zip"]
    assert "can't be unpacked" in desk.intake.entries.text_of(desk.folders.inbox / "monday.zip")


def test_an_archive_is_a_batch(desk: Desk, starter: Starter) -> None:
    """Its job files and pairs are jobs of a folder of its name; the folder goes when all is taken."""
    entries = [("top/one.json", JOB), ("top/in/face.jpg", b"f"), ("top/voice.wav", b"v")]
    desk.put("monday.zip", pack(*entries, ("top/two.png", b"f"), ("top/two.mp3", b"v")))
    desk.turn(wait_s=REST_S)
    desk.turn(wait_s=REST_S)
    os.utime(desk.folders.inbox / "monday" / "in" / "face.jpg", (1_600_000_000, 1_600_000_000))
    pass_turns(desk)
    assert [desk.job(name).state for name in ("one", "two")] == [JobState.QUEUED] * 2
    one, two = desk.job("one"), desk.job("two")
    assert one.spec is not None
    assert two.spec is not None
    assert (one.spec.batch, two.spec.batch) == ("monday", "monday")
    assert Path(one.media["avatar"]["path"]) == desk.folders.inbox / "monday" / "in" / "face.jpg"
    assert desk.inbox_names() == ["monday"]
    (desk.folders.inbox / "monday" / "in" / "face.jpg").unlink()  # as when the media are filed away
    (desk.folders.inbox / "monday" / "voice.wav").unlink()
    pass_turns(desk)
    assert desk.inbox_names() == []
    assert len(starter.programs) == 1
    assert desk.intake.ignored.rows == []


def test_a_batch_is_not_called_ignored_while_its_jobs_are_taken(desk: Desk, starter: Starter) -> None:
    """Neither while they wait, nor when the last is taken and the folder with them."""
    desk.put("monday.zip", pack(("two.png", b"f"), ("two.mp3", b"v")))
    for _ in range(6):
        desk.turn(wait_s=1.0)
        desk.intake.refuse_others(desk.at_ms)
        assert desk.intake.ignored.rows == []
    assert desk.names() == ["two"]
    assert len(starter.programs) == 1


def test_an_archive_that_is_refused_fails_as_a_job(desk: Desk, starter: Starter) -> None:
    """Its error says why and what to do, and nothing of it is left in the inbox."""
    desk.put("bomb.zip", pack(("../one.json", JOB)))
    pass_turns(desk)
    job = desk.job("bomb")
    assert (job.state, job.error_code) == (JobState.FAILED, ErrorCode.UNSUPPORTED_FILE)
    assert "leads out" in str(job.error_message)
    assert job.error_hint
    assert desk.inbox_names() == []
    assert len(starter.programs) == 1


def test_an_archive_without_jobs_stays(desk: Desk, starter: Starter) -> None:
    """It is read once, and the share says what is missing in it."""
    desk.put("photos.zip", pack(("a.jpg", b"f")))
    pass_turns(desk)
    assert desk.inbox_names() == ["photos.zip"]
    assert len(starter.programs) == 1
    assert [row.reason for row in desk.intake.ignored.rows] == ["no job file and no pair is in this archive"]


def test_a_program_that_hangs_or_dies(desk: Desk, starter: Starter) -> None:
    """It is killed after a while; the archive is refused, and its half-filled folder goes."""
    starter.is_real, starter.exit_code = False, None
    desk.put("slow.zip", pack(("one.json", JOB)))
    pass_turns(desk)
    assert not starter.programs[0].is_killed
    desk.turn(wait_s=LONGEST_S)
    assert starter.programs[0].is_killed
    starter.exit_code = -11
    desk.put("crash.zip", pack(("one.json", JOB)))
    pass_turns(desk)
    assert [desk.job(name).error_code for name in ("slow", "crash")] == [ErrorCode.UNSUPPORTED_FILE] * 2
    assert desk.inbox_names() == []


def test_a_full_disk_is_waited_for(desk: Desk, starter: Starter) -> None:
    """The archive stays, its problem is told, and it is tried again."""
    starter.is_real, starter.exit_code = False, unpack.NO_ROOM
    desk.put("big.zip", pack(("one.json", JOB)))
    pass_turns(desk)
    assert desk.inbox_names() == ["big.zip"]
    assert "No space left" in desk.intake.entries.texts[0]


def test_a_change_meanwhile_counts(desk: Desk, starter: Starter) -> None:
    """What was unpacked of an archive that has changed is thrown away, and it is read anew."""
    desk.put("one.zip", pack(("old.json", JOB)))
    desk.turn(wait_s=REST_S)
    desk.turn(wait_s=REST_S)
    desk.intake.zips.close()
    desk.put("two.zip", pack(("old.json", JOB)))
    starter.programs.clear()
    starter.is_real, starter.exit_code = False, None
    desk.turn(wait_s=REST_S)
    starter.programs[0].exit_code = 0
    desk.put("two.zip", pack(("new.json", JOB), ("more.json", JOB)))
    starter.is_real = True
    pass_turns(desk)
    assert "new" in desk.names()
    assert len(starter.programs) == 2


def test_an_archive_may_go_with_its_folder(desk: Desk, starter: Starter) -> None:
    """A user may remove both while the program runs: the inbox is read as before."""
    starter.is_real, starter.exit_code = False, None
    archive = desk.put("one.zip", pack(("one.json", JOB)))
    desk.turn(wait_s=REST_S)
    desk.turn(wait_s=REST_S)
    assert desk.intake.zips.folder is not None
    discard(desk.intake.zips.folder)
    archive.unlink()
    starter.programs[0].exit_code = unpack.NO_ROOM
    pass_turns(desk)
    assert desk.intake.zips.folder is None
    assert desk.inbox_names() == []


def test_recovery_leaves_the_folder_that_is_being_filled(desk: Desk, starter: Starter) -> None:
    """After an error of the share claims are recovered while the program runs; a new daemon removes what it left."""
    starter.is_real, starter.exit_code = False, None
    desk.put("one.zip", pack(("one.json", JOB)))
    desk.turn(wait_s=REST_S)
    folder = desk.intake.zips.folder
    assert folder is not None
    desk.intake.recover_claims(desk.at_ms)
    assert folder.is_dir()
    desk.intake.close()
    assert starter.programs[0].is_killed
    desk.open()
    desk.intake.recover_claims(desk.at_ms)
    assert not folder.exists()
    assert desk.inbox_names() == ["one.zip"]


def test_folders_can_be_off(desk: Desk, starter: Starter) -> None:
    """Without `inbox.folders` no archive is opened."""
    inbox = desk.settings.inbox.model_copy(update={"folders": False})
    desk.intake.settings.replace(desk.settings.model_copy(update={"inbox": inbox}))
    desk.put("one.zip", pack(("one.json", JOB)))
    pass_turns(desk)
    assert desk.inbox_names() == ["one.zip"]
    assert starter.programs == []
    assert isinstance(desk.intake.zips, ZipFiles)
