"""The daemon by turns, over fake workers and a clock that jumps: its share, its settings, its end, what it reports."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.daemon import ARCHIVE_S, MAX_WAIT_S, Daemon
from agent.fs import Fingerprint, take_fingerprint
from agent.intake.controls.commands import DrainDevice, ResumeDevice
from agent.ledger.disk_full import DiskFull
from agent.ledger.ledger import Ledger
from agent.service.liveness import KEY
from agent.service.process import AlreadyRunning, Signals
from agent.service.systemd import Notifier
from agent.settings import Settings
from agent.settings_file import load_settings
from gpu_pool.pool import Pool
from gpu_pool.types import Device, Done, Failed, RunSpan
from models.types import Inspection
from tests.agent.fake_clock import FakeClock
from tests.agent.ledger.query_plans import find_scans
from tests.gpu_pool.fake import FakeBackend, Message

SETTINGS = """
share = "share"
state = "state"
[inbox]
settle_s = 1
watch = "poll"
keep_media_s = 0
[limits]
min_free_bytes = 0
"""
FRAMES = 48


class Recorder(Notifier):
    """What systemd would have been told."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def _send(self, message: str) -> None:
        self.messages.append(message)


class Setup:
    """A daemon with two fake workers that make files of the right names; `turn` is one turn of its loop."""

    def __init__(self, root: Path, text: str = SETTINGS, *, has_share: bool = True) -> None:
        self.root, self.config = root, root / "musedrop.toml"
        self.share = root / "share"
        if has_share:
            self.share.mkdir()
        self.config.write_text(text)
        self.settings: Settings = load_settings(self.config)
        self.folders = self.settings.folders
        self.clock, self.notifier = FakeClock(), Recorder()
        self.says: list[Message] | None = None
        self.frame_s = 0.01
        self.fails = 0
        self.start()

    def start(self) -> None:
        """Make the daemon, as after a start of its process."""
        devices = [Device(f"cpu:{number}", "cpu") for number in range(2)]
        self.backend = FakeBackend(devices, self.clock, self.answer)
        pool = Pool(self.backend, stall_s=1000.0, clock=self.clock)
        self.daemon = Daemon(self.settings, pool=pool, clock=self.clock, notifier=self.notifier)

    def answer(self, device: str, run: RunSpan) -> Iterable[tuple[float, Message]]:
        """Do a span; an error of the system is told as a real worker tells it."""
        if self.fails:
            self.fails -= 1
            return [(0.0, Failed(run.task, run.start, run.stop, "internal", "boom", retry=True))]
        try:
            return self.do_span(device, run)
        except OSError as error:
            text = f"{type(error).__name__}: {error}"
            return [(0.0, Failed(run.task, run.start, run.stop, "internal", text, retry=True))]

    def do_span(self, _device: str, run: RunSpan) -> Iterable[tuple[float, Message]]:
        request, stage = run.payload["request"], run.payload["stage"]
        result: dict[str, Any] = {}
        if stage == "inspect":
            units = {"inspect": 1, "prepare": 1, "render": FRAMES, "assemble": 1}
            result = {"outline": Inspection(FRAMES, "25", 2, 2, FRAMES / 25, units).to_dict()}
        if stage == "assemble":
            out = Path(request["out"])
            out.mkdir(exist_ok=True)
            for name in ("result.mp4", "preview.jpg"):
                (out / name).write_bytes(b"x")
        takes_s = self.frame_s * (run.stop - run.start) if stage == "render" else 0.0
        return [(takes_s, Done(run.task, run.start, run.stop, takes_s, result))]

    def put(self, name: str, data: bytes = b"media") -> None:
        (self.folders.inbox / name).write_bytes(data)

    def drop(self, name: str, **keys: Any) -> None:
        self.put("face.jpg")
        self.put("voice.wav")
        self.put(f"{name}.json", json.dumps({"avatar": "face.jpg", "audio": "voice.wav", **keys}).encode())

    def turn(self, pass_s: float = 0.0) -> None:
        self.clock.now += pass_s
        self.daemon.step()

    def run(self, name: str, *states: str, within_s: float = 100.0) -> None:
        """Take turns until the newest job of that name is in one of the states."""
        end_s = self.clock.now + within_s
        while self.state(name) not in states:
            assert self.clock.now < end_s, (self.state(name), self.daemon.problems.texts)
            self.turn(pass_s=0.1)

    def state(self, name: str) -> str:
        job = self.daemon.ledger.find(name)
        return str(job.state) if job else "unknown"

    def row(self, name: str) -> dict[str, Any]:
        [row] = self.daemon.ledger.rows("SELECT * FROM job_status WHERE name = ?", [name])
        return row

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.folders.status_file.read_bytes()))

    def results(self) -> list[str]:
        return sorted(path.name for path in self.folders.outbox.iterdir())


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    yield made
    made.daemon.pool.close()
    made.daemon.ledger.close()


# a turn --------------------------------------------------------------------------------------------------------------


def test_a_job_goes_from_the_inbox_to_the_outbox(setup: Setup) -> None:
    """Turn by turn: claimed, rendered, published, and its files filed away."""
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "done")
    assert setup.results() == ["hello"]
    setup.turn(pass_s=ARCHIVE_S)
    setup.turn(pass_s=ARCHIVE_S)
    assert setup.daemon.has_finished
    assert len(list(setup.folders.archive.glob("*/hello/hello.json"))) == 1
    setup.turn(pass_s=10.0)
    assert not list(setup.folders.inbox.iterdir()), "the media follow"


def test_a_second_job_of_the_same_id_gets_the_same_result(setup: Setup) -> None:
    """It is not rendered; where the earlier result is gone, it is."""
    setup.turn()
    setup.drop("first", id="order-1")
    setup.run("first", "done")
    setup.drop("second", id="order-1")
    setup.run("second", "done")
    assert json.loads((setup.folders.outbox / "second" / "result.json").read_text())["cached_from"] == "first"
    for name in ("first", "second"):
        (setup.folders.outbox / name / "result.mp4").write_bytes(b"changed")
    setup.drop("third", id="order-1")
    setup.run("third", "done")
    assert json.loads((setup.folders.outbox / "third" / "result.json").read_text())["from_cache"] is False


def test_a_control_file_is_executed(setup: Setup) -> None:
    """Devices are drained and resumed by name, a running job is cancelled, and the control files go."""
    setup.frame_s = 10.0
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "running")
    setup.turn(pass_s=1.0)
    for name in ("hello.cancel", "cpu-1.drain"):
        setup.put(name)
    setup.turn(pass_s=MAX_WAIT_S)
    assert setup.state("hello") == "cancelled"
    assert setup.daemon.dispatcher.attempts == {}
    assert setup.daemon.ledger.devices.list_drained() == {"cpu:1"}
    assert not list(setup.folders.inbox.glob("*.*[nl]")), "control files are removed"
    setup.daemon.execute(ResumeDevice("cpu-1"))
    assert setup.daemon.ledger.devices.list_drained() == set()


def test_a_device_of_no_name_is_said(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing happens but a warning."""
    setup.daemon.execute(DrainDevice("cpu-7"))
    setup.daemon.execute(ResumeDevice("cpu-7"))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "nothing to drain: no device is called cpu-7",
        "nothing to resume: no device is called cpu-7",
    ]


def test_media_of_a_restored_share_are_accepted_at_the_start(setup: Setup) -> None:
    """A backup keeps seconds and no inodes: queued jobs know the copies, but not a file of another time."""
    setup.turn()
    setup.put("pause")
    for name in ("copied", "changed"):
        setup.put(f"{name}.jpg", b"face")
        setup.drop(name, avatar=f"{name}.jpg")
        setup.run(name, "queued")
    before = media_of(setup, "changed")["avatar"]
    for name, later_s in (("copied", 0), ("changed", 5)):
        path = setup.folders.inbox / f"{name}.jpg"
        at_s = path.stat().st_mtime_ns // 10**9 + later_s
        path.unlink()
        path.write_bytes(b"face")
        os.utime(path, (at_s, at_s))
    setup.daemon.abandon()
    setup.start()
    setup.turn()
    copy = take_fingerprint(setup.folders.inbox / "copied.jpg")
    assert copy is not None
    assert Fingerprint.from_dict(media_of(setup, "copied")["avatar"]) == copy
    assert media_of(setup, "changed")["avatar"] == before


def media_of(setup: Setup, name: str) -> dict[str, Any]:
    job = setup.daemon.ledger.find(name)
    assert job is not None
    return job.media


def test_a_paused_queue_starts_nothing_and_says_so(setup: Setup) -> None:
    """Queued jobs wait with the reason in their rows, until the queue is resumed."""
    setup.turn()
    setup.put("pause")
    setup.turn(pass_s=MAX_WAIT_S)
    setup.drop("hello")
    setup.run("hello", "queued")
    setup.turn(pass_s=1.0)
    assert (setup.state("hello"), setup.row("hello")["waiting_for"]) == ("queued", "the queue is paused")
    assert setup.status()["paused"] is True
    setup.put("resume")
    setup.run("hello", "done")


def test_a_full_disk_starts_nothing(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is held while a disk is nearly full, and goes on when there is room."""
    with monkeypatch.context() as patch:
        patch.setattr("agent.daemon.find_low_disk", lambda _settings: "the disk is nearly full")
        setup.turn()
        setup.drop("hello")
        setup.run("hello", "queued")
        setup.turn(pass_s=5.0)
        assert setup.row("hello")["waiting_for"] == "the disk is nearly full"
        assert setup.daemon.problems["disk"] == "the disk is nearly full"
    setup.run("hello", "done")
    assert setup.daemon.problems["disk"] == ""


def test_an_idle_daemon_waits_for_the_next_scan(setup: Setup) -> None:
    """It sleeps at most `MAX_WAIT_S`, less while something is due, not at all while old files are deleted."""
    setup.turn()
    assert 0 < setup.daemon.idle_s() <= MAX_WAIT_S
    for number in range(40):
        (setup.folders.trash / str(number)).mkdir(parents=True)
    setup.turn(pass_s=3600.0)
    assert setup.daemon.idle_s() == 0.0
    while setup.daemon.idle_s() == 0.0:
        setup.turn()
    assert not list(setup.folders.trash.iterdir())


# the share -----------------------------------------------------------------------------------------------------------


def test_a_share_that_is_gone_stops_the_work_and_comes_back(setup: Setup) -> None:
    """No span is started and nothing is written below the empty mount point; afterwards the jobs go on."""
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "running")
    away = setup.share.rename(setup.root / "away")
    setup.share.mkdir()
    setup.turn(pass_s=MAX_WAIT_S)
    assert "is not the one" in setup.daemon.problems["share"]
    for _ in range(20):
        setup.turn(pass_s=1.0)
    assert setup.state("hello") in ("running", "queued")
    assert list(setup.share.iterdir()) == []
    assert setup.daemon.problems.texts
    setup.share.rmdir()
    away.rename(setup.share)
    setup.run("hello", "done")
    assert setup.daemon.problems.texts == []
    assert setup.results() == ["hello"]


def test_a_share_that_was_never_there_is_waited_for(tmp_path: Path) -> None:
    """The daemon starts without it, and reads the inbox when it appears."""
    setup = Setup(tmp_path, has_share=False)
    setup.turn()
    assert "does not exist" in setup.daemon.problems["share"]
    assert not setup.daemon.share_present
    setup.share.mkdir()
    setup.turn(pass_s=MAX_WAIT_S)
    assert setup.daemon.share_present
    setup.drop("hello")
    setup.run("hello", "done")
    setup.daemon.close()


def test_folders_that_cannot_be_made_are_a_problem(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that may only be read is not there for us; it is looked at again."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("agent.service.share_folders.make_folders", refuse)
        setup.turn()
        assert setup.daemon.problems["share"] == "the folders of the share can't be made: Permission denied"
    setup.turn(pass_s=MAX_WAIT_S)
    assert setup.daemon.problems["share"] == ""


def test_files_that_cannot_be_moved_are_a_problem(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim is tried again at the next scan, and what it left is recovered first."""
    setup.turn()
    setup.drop("hello")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("agent.intake.admission.Intake.claim_new", refuse)
        setup.turn(pass_s=MAX_WAIT_S)
        assert "can't be moved" in setup.daemon.problems["inbox"]
    setup.run("hello", "done")
    assert setup.daemon.problems["inbox"] == ""


def test_an_inbox_that_cannot_be_read_stops_nothing_else(setup: Setup) -> None:
    """The running job is rendered and published meanwhile."""
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "running")
    setup.folders.inbox.rename(setup.share / "away")
    setup.run("hello", "done")
    setup.turn(pass_s=MAX_WAIT_S)
    assert "can't be read" in setup.daemon.problems["inbox"]
    (setup.share / "away").rename(setup.folders.inbox)
    setup.turn(pass_s=MAX_WAIT_S)
    assert setup.daemon.problems["inbox"] == ""


# settings ------------------------------------------------------------------------------------------------------------


def reload(setup: Setup, text: str) -> None:
    setup.config.write_text(text)
    setup.daemon.reload(setup.config)


def test_a_reload_reaches_every_part(setup: Setup) -> None:
    """All parts read the one holder; the share is opened anew, and systemd is told when it begins and ends."""
    setup.turn()
    setup.notifier.messages.clear()
    text = SETTINGS.replace("settle_s = 1", "settle_s = 2\nmax_job_bytes = 2000") + "[pool]\nmax_interruptions = 7\n"
    reload(setup, text)
    daemon = setup.daemon
    assert daemon.settings.current.pool.max_interruptions == 7
    assert daemon.dispatcher.settings is daemon.settings is daemon.archiver.settings is daemon.intake.settings
    assert daemon.intake.inbox.max_job_bytes == 2000
    setup.turn(pass_s=1.0)
    assert daemon.intake.inbox.settle_s == 2
    assert daemon.problems.texts == []
    assert [m for m in setup.notifier.messages if not m.startswith(("STATUS", "WATCHDOG"))] == [
        "RELOADING=1",
        "READY=1",
    ]


def test_a_reload_names_what_needs_a_restart(setup: Setup) -> None:
    """The rest is taken over, and the notice stands in the status until it is no longer true."""
    setup.turn()
    reload(setup, SETTINGS + "[devices]\ncpu_workers = 3\n[pool]\ndrain_s = 9\n")
    assert setup.daemon.settings.current.pool.drain_s == 9
    setup.turn(pass_s=1.0)
    assert setup.status()["problems"] == ["a restart is needed for devices.cpu_workers"]
    reload(setup, SETTINGS)
    setup.turn(pass_s=1.0)
    assert setup.status()["problems"] == []


def test_a_reload_of_a_bad_file_changes_nothing(setup: Setup) -> None:
    """The notice says what is wrong with the file."""
    before = setup.daemon.settings.current
    reload(setup, "share = 7")
    assert setup.daemon.settings.current == before
    [notice] = setup.daemon.problems.texts
    assert notice.startswith("the settings are as before, the file can't be used:")


# the end -------------------------------------------------------------------------------------------------------------


class FakeSignals(Signals):
    """Signals that a test counts."""

    def __init__(self) -> None:
        self.stop_requests = 1


def test_a_drain_lets_running_spans_finish_and_starts_nothing(setup: Setup) -> None:
    """The spans end, the job waits for the next start, and a new one is not claimed."""
    setup.frame_s = 1.0
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "running")
    for _ in range(20):
        setup.daemon.step(0.0)
    assert setup.daemon.dispatcher.has_running_spans
    setup.put("late.json", b"{}")
    setup.daemon.drain(FakeSignals())
    assert not setup.daemon.dispatcher.has_running_spans
    assert setup.state("late") == "unknown"
    assert "STOPPING=1" in setup.notifier.messages
    assert any(message.startswith("EXTEND_TIMEOUT_USEC=") for message in setup.notifier.messages)
    setup.daemon.close()
    ledger = Ledger(setup.folders.ledger)
    job = ledger.find("hello")
    ledger.close()
    assert job is not None
    assert (str(job.state), job.stage, job.waiting_for) == ("queued", "assemble", None)


def test_a_second_signal_ends_a_drain_at_once(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    """The running spans are interrupted, and the job is queued again in the stage it had reached."""
    setup.frame_s = 1000.0
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "running")
    setup.turn(pass_s=1.0)
    signals = FakeSignals()
    signals.stop_requests = 2
    setup.daemon.drain(signals)
    assert "interrupted" in caplog.text
    setup.daemon.close()
    ledger = Ledger(setup.folders.ledger)
    [row] = ledger.rows("SELECT state, stage, waiting_for, device FROM job_status")
    ledger.close()
    assert row == {"state": "queued", "stage": "render", "waiting_for": None, "device": None}
    assert setup.status()["daemon"]["running"] is False


def test_the_next_start_finishes_the_jobs(setup: Setup) -> None:
    """A daemon that was killed leaves a running job; the next one settles it before anything else."""
    setup.frame_s = 1000.0
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "running")
    setup.daemon.abandon()
    setup.frame_s = 0.01
    setup.start()
    setup.run("hello", "done")
    assert setup.row("hello")["attempt"] == 2


def test_the_next_start_knows_the_cards_of_this_one(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool is told of them before they leave the ledger; a driver in trouble is a problem of the daemon."""
    setup.daemon.ledger.devices.record(Device("GPU-1", "cuda", card="GPU-1", state="idle"), at_ms=1)
    setup.daemon.abandon()
    told: list[str] = []

    def open_pool(_: Settings, __: str, earlier: list[Device]) -> Pool:
        told.extend(device.id for device in earlier)
        return Pool(FakeBackend([Device("cpu:0", "cpu")], setup.clock, setup.answer), stall_s=1.0, clock=setup.clock)

    monkeypatch.setattr("agent.daemon.open_pool", open_pool)
    setup.daemon = Daemon(setup.settings, clock=setup.clock, notifier=setup.notifier)
    assert told == ["GPU-1"]
    monkeypatch.setattr(setup.daemon.dispatcher, "find_held", lambda: (["auto"], "The driver fails; reboot."))
    setup.daemon.hold_queue()
    assert setup.daemon.problems["driver"] == "The driver fails; reboot"


def test_one_daemon_for_a_state_folder(setup: Setup) -> None:
    """A second one is refused, and the first keeps its ledger."""
    with pytest.raises(AlreadyRunning):
        Daemon(setup.settings, pool=setup.daemon.pool, clock=setup.clock, notifier=setup.notifier)
    setup.turn()


def test_a_full_state_disk_abandons_the_daemon(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` says so, writes nothing more, and lets go of the lock; another daemon can start."""

    def fill(_daemon: Daemon, _timeout_s: float = 0.0) -> None:
        raise DiskFull("no space left")

    monkeypatch.setattr(Daemon, "step", fill)
    assert setup.daemon.run() is True
    monkeypatch.undo()
    setup.start()
    setup.turn()


# reports -------------------------------------------------------------------------------------------------------------


def test_the_status_says_what_the_daemon_does(setup: Setup) -> None:
    """status.json holds the jobs and the devices, the line for systemd the counts; both follow what changes."""
    setup.frame_s = 1.0
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "running")
    for _ in range(3):
        setup.turn(pass_s=1.0)
    status = setup.status()
    assert [row["name"] for row in status["running"]] == ["hello"]
    assert status["counts"]["running"] == 1
    assert (status["daemon"]["running"], status["daemon"]["pid"]) == (True, os.getpid())
    assert [row["device"] for row in status["devices"]] == ["cpu:0", "cpu:1"]
    assert "STATUS=1 running, 0 queued, 0 waiting" in setup.notifier.messages
    assert status["updated_at_ms"] <= setup.clock.at_ms()


def test_a_status_that_has_not_changed_is_not_written_again(setup: Setup) -> None:
    """An idle daemon leaves the file alone."""
    setup.turn()
    setup.turn(pass_s=10.0)
    before = setup.folders.status_file.stat().st_mtime_ns
    for _ in range(3):
        setup.turn(pass_s=10.0)
    assert setup.folders.status_file.stat().st_mtime_ns == before


def test_a_status_file_that_cannot_be_written_is_a_problem(setup: Setup) -> None:
    """It is tried again, and over when it works."""
    setup.folders.status_file.mkdir()
    (setup.folders.status_file / "in the way").touch()
    setup.turn()
    assert "status.json can't be written" in setup.daemon.problems["status"]
    (setup.folders.status_file / "in the way").unlink()
    setup.folders.status_file.rmdir()
    setup.turn(pass_s=10.0)
    assert setup.daemon.problems["status"] == ""


def test_the_watchdog_is_fed_while_the_loop_works(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs without progress still commit a heartbeat; a scan that is overdue feeds nothing."""
    setup.frame_s = 1000.0
    setup.daemon.watchdog.period_s = 1.0
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "running")
    beats = set()
    for _ in range(4):
        setup.notifier.messages.clear()
        setup.turn(pass_s=6.0)
        beats.add(setup.daemon.ledger.recall(KEY))
        assert "WATCHDOG=1" in setup.notifier.messages
    assert len(beats) == 4
    monkeypatch.setattr(setup.daemon, "read_inbox", lambda: None)
    setup.notifier.messages.clear()
    setup.turn(pass_s=100.0)
    assert "WATCHDOG=1" not in setup.notifier.messages


# the clock -----------------------------------------------------------------------------------------------------------

DAY_S = 86_400.0


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_set_forward_fails_no_waiting_job(setup: Setup, restarted: bool) -> None:
    """The job waits for its media as long as it would have, also if the daemon was away meanwhile."""
    setup.turn()
    setup.put("hello.json", json.dumps({"avatar": "face.jpg", "audio": "voice.wav"}).encode())
    setup.run("hello", "waiting")
    setup.clock.set_calendar(40 * DAY_S)
    if restarted:
        setup.daemon.abandon()
        setup.start()
    setup.turn(pass_s=MAX_WAIT_S)
    assert setup.state("hello") == "waiting"
    setup.run("hello", "failed", within_s=310.0)
    assert setup.clock.now > 290


def test_a_pause_is_as_long_as_it_was_by_any_clock(setup: Setup) -> None:
    """Set back by a day, a second try still comes in two seconds."""
    setup.turn()
    setup.drop("hello")
    setup.fails = 1
    while (setup.state("hello"), setup.fails) != ("queued", 0):
        setup.turn(pass_s=0.1)
    setup.clock.set_calendar(-DAY_S)
    before = setup.clock.now
    setup.run("hello", "done", within_s=10.0)
    assert setup.clock.now - before <= 10.0


def test_a_pause_of_an_unknown_clock_is_bounded(setup: Setup) -> None:
    """After another start of the machine with an earlier clock, no pause lasts longer than the longest."""
    setup.turn()
    setup.drop("hello")
    setup.fails = 1
    while (setup.state("hello"), setup.fails) != ("queued", 0):
        setup.turn(pass_s=0.1)
    setup.daemon.abandon()
    setup.clock.set_calendar(-DAY_S)
    setup.clock.boot = "another"
    setup.start()
    before = setup.clock.now
    setup.run("hello", "done", within_s=70.0)
    assert setup.clock.now - before <= 70.0


def test_a_clock_set_forward_deletes_nothing(setup: Setup) -> None:
    """Neither files nor rows go, until a day has passed or a person says that the clock is right."""
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "done")
    for _ in range(3):
        setup.turn(pass_s=MAX_WAIT_S)
    [inputs] = setup.folders.archive.glob("*/hello")
    os.utime(inputs, (setup.clock.at_ms() / 1000,) * 2)
    setup.clock.set_calendar(400 * DAY_S)
    for _ in range(4):
        setup.turn(pass_s=3600.0)
    assert inputs.is_dir()
    assert setup.state("hello") == "done"
    assert any("musedrop trust-clock" in text for text in setup.status()["problems"])
    setup.put("trust-clock", b"")
    for _ in range(3):
        setup.turn(pass_s=MAX_WAIT_S)
    assert not inputs.exists()
    assert setup.state("hello") == "unknown"
    assert not any("trust-clock" in text for text in setup.daemon.problems.texts)


def test_media_stay_as_long_as_they_should(setup: Setup) -> None:
    """A clock set forward does not take them from the jobs that come next."""
    reload(setup, SETTINGS.replace("keep_media_s = 0", "keep_media_s = 600"))
    setup.turn()
    setup.drop("hello")
    setup.run("hello", "done")
    setup.clock.set_calendar(DAY_S)
    setup.turn(pass_s=MAX_WAIT_S)
    setup.turn(pass_s=MAX_WAIT_S)
    assert (setup.folders.inbox / "face.jpg").exists()
    setup.clock.set_calendar(-2 * DAY_S)
    setup.turn(pass_s=600.0)
    setup.turn(pass_s=MAX_WAIT_S)
    assert not (setup.folders.inbox / "face.jpg").exists()


# large ledgers -------------------------------------------------------------------------------------------------------


def test_no_turn_reads_all_jobs(setup: Setup) -> None:
    """Whatever the daemon does, its statements find rows by an index: a million rows cost an idle daemon nothing."""
    statements: set[str] = set()
    setup.daemon.ledger.db.conn.set_trace_callback(statements.add)
    setup.turn()
    setup.drop("hello", id="order-1")
    setup.run("hello", "done")
    setup.drop("again", id="order-1")
    setup.run("again", "done")
    setup.drop("bad", audio="/etc/passwd")
    setup.run("bad", "failed")
    setup.put("bad.retry")
    setup.put("pause")
    setup.drop("late", avatar="never.jpg")
    setup.turn(pass_s=10.0)
    setup.put("late.cancel")
    setup.run("late", "cancelled")
    setup.turn(pass_s=4000.0)
    conn = setup.daemon.ledger.db.conn
    conn.set_trace_callback(None)
    read = [sql for sql in statements if re.match(r"\s*(SELECT|WITH|UPDATE|DELETE|INSERT)\b", sql)]
    assert len(read) > 50
    assert {sql: scans for sql in read if (scans := find_scans(conn, sql))} == {}
