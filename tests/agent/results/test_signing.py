"""The publisher waits for the program that signs, and says when it can't."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.credentials import FULL
from agent.fs.layout import Folders
from agent.jobs.states import JobState
from agent.results.publisher import PUBLISH_RETRY_S
from agent.results.signing import MOST_TRIES, Signer
from agent.scheduler.worker_walls import build_walls
from agent.settings import CurrentSettings
from agent.settings_file import load_settings
from gpu_pool.failpoints import VARIABLE
from tests.agent.results.desk import Desk


class FakeProgram:
    """Ends when it is told to."""

    def __init__(self) -> None:
        self.exit_code: int | None = None

    def kill(self) -> None:
        """Nothing runs."""


class FakeStart:
    """Notes what programs were to sign."""

    def __init__(self) -> None:
        self.jobs: list[list[str]] = []
        self.program = FakeProgram()

    def __call__(self, _folders: Folders, _args: Sequence[str], stdin: bytes) -> FakeProgram:
        self.jobs.append([job["token"] for job in json.loads(stdin)])
        self.program = FakeProgram()
        return self.program


def let_sign(desk: Desk) -> tuple[Signer, FakeStart]:
    start = FakeStart()
    settings = CurrentSettings(load_settings(desk.folders.share.parent / "musedrop.toml"))
    signer = Signer(settings, desk.folders, start)
    desk.publisher._signer = signer
    return signer, start


def publish(desk: Desk) -> None:
    desk.clock.now += 0.1
    desk.publisher.publish()


def test_nothing_is_published_before_it_is_signed(desk: Desk) -> None:
    """Results that come meanwhile wait for the next program; the report goes into the row and result.json."""
    _, start = let_sign(desk)
    desk.add("u1")
    publish(desk)
    desk.add("u2")
    publish(desk)
    assert (desk.results(), start.jobs) == ([], [["u1-token"]])
    report = {"video_sha256": "ab", "video_bytes": 1, "credentials": {"manifest": "urn:1"}}
    (desk.folders.signed / "u1-token.json").write_text(json.dumps(report))
    start.program.exit_code = 0
    publish(desk)
    assert (desk.results(), start.jobs) == (["hello"], [["u1-token"], ["u2-token"]])
    record = json.loads((desk.folders.outbox / "hello" / "result.json").read_text())
    assert (record["credentials"], record["video_sha256"]) == ({"manifest": "urn:1"}, "ab")
    assert list(desk.folders.signed.iterdir()) == []
    assert desk.job("u1").state == JobState.DONE


def test_a_program_that_dies_is_started_again(desk: Desk) -> None:
    """After some times the video is published without credentials, and its warnings say so."""
    _, start = let_sign(desk)
    desk.add("u1")
    for _ in range(MOST_TRIES):
        publish(desk)
        start.program.exit_code = -9
    publish(desk)
    assert len(start.jobs) == MOST_TRIES
    record = json.loads((desk.folders.outbox / "hello" / "result.json").read_text())
    assert "no content credentials" in record["warnings"][0]
    assert "no content credentials" in desk.problems["credentials"]


def test_a_result_that_ends_programs_holds_up_no_others(desk: Desk) -> None:
    """What a program has ended at is tried alone; the others are signed meanwhile, or after it."""
    _, start = let_sign(desk)
    for uid in ("u1", "u2", "u3"):
        desk.add(uid)
    publish(desk)
    start.program.exit_code = -11
    for uid in ("u1", "u2", "u3"):
        publish(desk)
        [token] = start.jobs[-1]
        assert token == f"{uid}-token"
        report(desk, token, video_sha256="ab", video_bytes=1)
        start.program.exit_code = 0
    publish(desk)
    assert desk.results() == ["hello", "hello-2", "hello-3"]


def report(desk: Desk, token: str, **said: object) -> None:
    (desk.folders.signed / f"{token}.json").write_text(json.dumps(said))


@pytest.mark.parametrize("leaves_report", [True, False])
def test_a_full_disk_is_waited_for(desk: Desk, leaves_report: bool) -> None:
    """However often: nothing is published unsigned, the status says why, and there is an end to it."""
    _, start = let_sign(desk)
    desk.add("u1")
    publish(desk)
    for _ in range(MOST_TRIES + 1):
        if leaves_report:
            report(desk, "u1-token", problem="OSError: No space left on device", wait=True)
        start.program.exit_code = 0 if leaves_report else FULL
        publish(desk)
        assert "results can't be signed" in desk.problems["credentials"]
        desk.clock.now += PUBLISH_RETRY_S
        publish(desk)
    assert desk.results() == []
    report(desk, "u1-token", video_sha256="ab", video_bytes=1)
    start.program.exit_code = 0
    publish(desk)
    assert (desk.results(), desk.problems["credentials"]) == (["hello"], "")


def test_reports_of_results_that_are_gone_are_deleted(desk: Desk) -> None:
    """A job that is cancelled while its video is signed leaves one; that of a video that is still there is kept."""
    signer, _ = let_sign(desk)
    desk.add("u1")
    publish(desk)
    for token in ("u1-token", "u0-token"):
        report(desk, token)
    signer.discard_others({"u1-token"})
    assert [path.name for path in desk.folders.signed.iterdir()] == ["u1-token.json"]


def test_a_problem_is_told_once(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a daemon that starts when the row has it already, and so has the video signed again."""
    _, start = let_sign(desk)
    desk.add("u1")
    monkeypatch.setenv(VARIABLE, f"credentials:raise:{tmp_path / 'reached'}")
    for has_reached in (False, True):
        publish(desk)
        (desk.folders.signed / "u1-token.json").write_text('{"problem": "no key"}')
        start.program.exit_code = 0
        if not has_reached:
            with pytest.raises(RuntimeError):
                publish(desk)
            desk.publisher.pending.clear()
            desk.publisher.recover()
    publish(desk)
    [result] = desk.folders.outbox.glob("*/result.json")
    assert json.loads(result.read_text())["warnings"] == ["the video has no content credentials: no key"]


def test_a_program_that_can_not_be_started_is_not_tried_at_each_turn(desk: Desk) -> None:
    """A machine without room for it is asked again after some seconds; the result waits."""
    signer, start = let_sign(desk)

    def refuse(*_given: object) -> FakeProgram:
        raise OSError(11, "Resource temporarily unavailable")

    signer.start = refuse
    desk.add("u1")
    publish(desk)
    assert desk.publisher.next_due_s >= desk.clock.now + PUBLISH_RETRY_S
    signer.start = start
    desk.clock.now += PUBLISH_RETRY_S
    publish(desk)
    assert (desk.results(), start.jobs) == ([], [["u1-token"]])


def test_no_worker_on_the_processor_can_read_the_key(desk: Desk) -> None:
    """Those that open files of strangers have no folder that the key is below."""
    signer, _ = let_sign(desk)
    walls = build_walls(signer.settings, "cpu")
    assert walls is not None
    assert walls.hides_files
    opened = [Path(path) for path in (*walls.read, *walls.write, *walls.driver, walls.temp) if path]
    assert [path for path in opened if desk.folders.credentials.is_relative_to(path)] == []


def test_settings_leave_it_out(desk: Desk, tmp_path: Path) -> None:
    """With `sign = "off"` no program starts, and the video is published at once."""
    signer, start = let_sign(desk)
    path = tmp_path / "off.toml"
    path.write_text(f'share = "{desk.folders.share}"\nstate = "{desk.folders.state}"\n[credentials]\nsign = "off"\n')
    signer.settings.replace(load_settings(path))
    desk.add("u1")
    publish(desk)
    assert (desk.results(), start.jobs) == (["hello"], [])


def test_the_first_start_makes_the_key(desk: Desk) -> None:
    """By the program for that, without results; a later start finds it."""
    signer, start = let_sign(desk)
    desk.publisher.make_signing_key()
    assert start.jobs == [[]]
    desk.publisher.make_signing_key()
    start.program.exit_code = 0
    assert signer.collect(desk.clock.now) == {}
    (desk.folders.credentials / "key.pem").touch()
    desk.publisher.make_signing_key()
    assert start.jobs == [[]]


def test_no_program_is_left(desk: Desk) -> None:
    """One that has made the key is collected though nothing is to be published; one that runs ends with the daemon."""
    signer, start = let_sign(desk)
    desk.publisher.make_signing_key()
    publish(desk)
    assert signer.is_running
    start.program.exit_code = 0
    publish(desk)
    assert not signer.is_running
    desk.publisher.make_signing_key()
    signer.close()
    assert not signer.is_running
