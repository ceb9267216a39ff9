"""The commands about jobs, called in this process on a share without a daemon."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent.cli.main import app
from agent.errors import ErrorCode, UserError
from agent.jobs.parse import parse_job
from agent.jobs.states import JobState
from agent.ledger.job import JobError
from agent.ledger.ledger import Ledger
from agent.service.process import InstanceLock
from agent.settings import Settings
from agent.text import restore_names
from tests.agent.samples import add_job
from tests.share import ROOT


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A face and two voices that are never opened."""
    for name in ("me.jpg", "one.wav", "two.wav"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def call(settings: Settings, *words: object) -> Result:
    config = settings.share / "musedrop.toml"
    return CliRunner().invoke(app, [*map(str, words), "-c", str(config)], env={"COLUMNS": "120"})


def refuse(settings: Settings, *words: object) -> str:
    """Return the message of a command that must be refused with exit code 2, and leave nothing in the inbox."""
    result = call(settings, *words)
    assert isinstance(result.exception, UserError), result.output
    assert result.exception.exit_code == 2
    assert not list(settings.folders.inbox.iterdir())
    return str(result.exception)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--engine", "musetallk"], "musetallk"),
        (["--priority", "urgent"], "low, normal, high"),
        (["--fps", "500"], "120"),
        (["--crf", "70"], "51"),
        (["--height", "3"], "64"),
        (["--encoder", "x265"], "libx264"),
        (["--max-attempts", "0"], "1"),
        (["--timeout", "-1"], "0"),
        (["--strategy", "fast"], "race"),
        (["--option", "Bad Name=1"], "Bad Name"),
        (["--id", "a\x07b"], "printed"),
    ],
)
def test_a_job_that_would_be_refused_is_not_submitted(
    settings: Settings, media: Path, words: list[str], told: str
) -> None:
    """submit uses the daemon's own validator: the value and what is allowed are said at once, and nothing is copied."""
    assert told in refuse(settings, "submit", media / "one.wav", "--avatar", media / "me.jpg", *words)


def test_a_name_that_the_library_lacks_is_not_submitted(settings: Settings, media: Path) -> None:
    """The nearest name is proposed, also for files."""
    (settings.folders.avatars / "anna.jpg").write_bytes(b"face")
    assert "did you mean anna?" in refuse(settings, "submit", media / "one.wav", "--avatar", "ana")
    assert "did you mean me.jpg?" in refuse(settings, "submit", media / "one.wav", "--avatar", media / "mee.jpg")
    assert "did you mean one.wav?" in refuse(settings, "submit", media / "onw.wav", "--avatar", "anna")
    assert "no voice" in refuse(settings, "submit", "--avatar", "anna")
    (media / "one.txt").write_text("Hello.")
    assert "[speech]" in refuse(settings, "submit", media / "one.txt", "--avatar", "anna")


def test_copies_keep_the_names_that_users_gave(settings: Settings, media: Path) -> None:
    """Each copy has a tag of its own, also where ids begin alike; messages name the files without it."""
    other = media / "other"
    other.mkdir()
    (other / "one.wav").write_bytes(b"another")
    for number, voice in enumerate((media / "one.wav", other / "one.wav")):
        words = ["--avatar", media / "me.jpg", "--id", f"order-00{number}", "--name", f"job{number}"]
        assert call(settings, "submit", voice, *words).exit_code == 0
    specs = [parse_job((settings.folders.inbox / f"job{n}.json").read_bytes()) for n in range(2)]
    names = [str(name) for spec in specs for name in (spec.avatar, spec.audio)]
    assert len(set(names)) == 4
    assert [restore_names(f"{name} is no sound") for name in names] == ["me.jpg is no sound", "one.wav is no sound"] * 2
    sounds = [(settings.folders.inbox / str(spec.audio)).read_bytes() for spec in specs]
    assert sounds == [b"one.wav", b"another"]


def test_several_voices_are_submitted_at_once(settings: Settings, media: Path) -> None:
    """Each voice is a job with all the options; a name or an id for several is refused."""
    two = [media / "one.wav", media / "two.wav"]
    assert "--name" in refuse(settings, "submit", *two, "--avatar", media / "me.jpg", "--name", "x")
    options = ["--crf", "30", "--height", "480", "--encoder", "libx264", "--max-attempts", "2", "--timeout", "60"]
    made = call(settings, "submit", *two, "--avatar", media / "me.jpg", *options, "--json")
    assert made.exit_code == 0, made.output
    assert [row["name"] for row in json.loads(made.stdout)] == ["one", "two"]
    for name in ("one", "two"):
        spec = parse_job((settings.folders.inbox / f"{name}.json").read_bytes())
        assert (spec.output.crf, spec.output.height, spec.max_attempts, spec.timeout_s) == (30, 480, 2, 60.0)
    assert call(settings, "submit", two[0], "--avatar", media / "me.jpg", "--id", "order-1").exit_code == 0
    assert parse_job((settings.folders.inbox / "one-2.json").read_bytes()).id == "order-1"


def test_one_bad_voice_of_several_stops_all(settings: Settings, media: Path) -> None:
    """Nothing is copied for the good one either, so that the command can be repeated."""
    assert "gone.wav" in refuse(settings, "submit", media / "one.wav", "gone.wav", "--avatar", media / "me.jpg")


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    made = Ledger(settings.folders.ledger)
    for at_ms, (name, state) in enumerate(
        {
            "open": JobState.QUEUED,
            "done": JobState.DONE,
            "bad": JobState.FAILED,
            "stopped": JobState.CANCELLED,
        }.items(),
        1000,
    ):
        add_job(made, f"uid-{name}", name=name, state=state, at_ms=at_ms)
    return made


def list_inbox(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.folders.inbox.iterdir())


def test_what_can_not_happen_is_said(settings: Settings, ledger: Ledger) -> None:
    """cancel of an ended job and retry of one that has not failed exit with 2, and write nothing."""
    for words, told in (
        (["cancel", "done"], "done is done already"),
        (["cancel", "bad"], "bad has failed already"),
        (["retry", "done"], "drop its files again"),
        (["priority", "front", "done"], "done has ended already"),
        (["retry", "open"], "is not finished"),
        (["cancel", "opne"], "did you mean open?"),
    ):
        told_by = call(settings, *words)
        assert told_by.exit_code == 2
        assert told in told_by.stderr
    assert list_inbox(settings) == []
    assert "no job is named" in refuse(settings, "cancel")
    ledger.close()


def test_several_jobs_are_cancelled_and_retried(settings: Settings, ledger: Ledger) -> None:
    """The possible ones get their control files, by uid, though another name is refused."""
    told = call(settings, "cancel", "open", "done")
    assert told.exit_code == 2
    assert "open will be cancelled" in told.stdout
    assert call(settings, "retry", "--failed").exit_code == 0
    assert list_inbox(settings) == ["uid-bad.retry", "uid-open.cancel"]
    assert call(settings, "retry", "--all").exit_code == 0
    assert list_inbox(settings) == ["uid-bad.retry", "uid-open.cancel", "uid-stopped.retry"]
    assert "open will be moved" in call(settings, "priority", "front", "open").stdout
    assert "uid-open.front" in list_inbox(settings)
    ledger.close()


def test_no_daemon_is_said_by_everything_that_shows_or_hands_in(
    settings: Settings, ledger: Ledger, media: Path
) -> None:
    """On stderr, with the command that starts one; what only shows exits with 3, until a daemon holds the lock."""
    for code, words in (
        (3, ["status"]),
        (3, ["status", "done"]),
        (3, ["status", "--json"]),
        (3, ["devices"]),
        (0, ["submit", media / "one.wav", "--avatar", media / "me.jpg"]),
        (0, ["cancel", "open"]),
        (0, ["retry", "bad"]),
        (0, ["logs", "bad"]),
        (0, ["pause"]),
        (0, ["resume"]),
        (0, ["trust-clock"]),
    ):
        told = call(settings, *words)
        assert told.exit_code == code, words
        assert "no daemon is running" in told.stderr
        assert "musedrop run -c" in told.stderr
        assert "no daemon" not in told.stdout
    lock = InstanceLock(settings.folders.lock)
    shown = call(settings, "status")
    assert (shown.exit_code, shown.stderr) == (0, "")
    lock.release()
    ledger.close()


def test_all_jobs_of_a_name_are_shown(settings: Settings, ledger: Ledger) -> None:
    """The newest in full, the others in a table; as JSON the newest, or all."""
    add_job(ledger, "uid-again", name="done", state=JobState.FAILED, at_ms=5000)
    shown = call(settings, "status", "done").stdout
    assert "uid-again" in shown
    assert shown.count("100 %") == 1
    assert json.loads(call(settings, "status", "done", "--json").stdout)["uid"] == "uid-again"
    every = json.loads(call(settings, "status", "done", "--json", "--all").stdout)
    assert [row["uid"] for row in every] == ["uid-again", "uid-done"]
    assert "did you mean done?" in str(call(settings, "status", "dne").exception)
    ledger.close()


def test_a_limit_is_checked(settings: Settings, ledger: Ledger) -> None:
    """A number that lists nothing is refused."""
    assert call(settings, "status", "--limit", "0").exit_code == 2
    assert call(settings, "status", "--limit", "-5").exit_code == 2
    ledger.close()


def test_waiting_ends_with_a_code(settings: Settings, ledger: Ledger) -> None:
    """0 where all are done, 1 where one is not, 4 when the time is over; rows as JSON."""
    assert call(settings, "wait", "done").exit_code == 0
    both = call(settings, "wait", "done", "bad", "--json")
    assert both.exit_code == 1
    assert [row["state"] for row in json.loads(both.stdout)] == ["done", "failed"]
    assert call(settings, "wait", "open", "--timeout", "0").exit_code == 4
    assert isinstance(call(settings, "wait", "nothing").exception, UserError)
    ledger.close()


def test_logs_tell_what_happened(settings: Settings, ledger: Ledger) -> None:
    """Of one job, with -f until it has ended, or of all and the workers; as rows, too."""
    assert "no face was found" in call(settings, "logs", "bad", "-f").stdout
    settings.folders.logs.mkdir(exist_ok=True)
    (settings.folders.logs / "cpu-0.log").write_text("a line of a worker\n")
    every = call(settings, "logs").stdout
    assert "a line of a worker" in every
    assert "stopped" in every
    assert json.loads(call(settings, "logs", "bad", "--json").stdout)[-1]["kind"] == "failed"
    ledger.close()


def test_open_prints_the_path(settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The video of a done job, the folder of a failed one, the first part of one that runs; else an error says why."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    video = settings.folders.outbox / "done" / "result.mp4"
    assert "no longer there" in str(call(settings, "open", "done").exception)
    video.parent.mkdir()
    video.touch()
    (settings.folders.failed / "bad").mkdir()
    assert call(settings, "open", "done").stdout == f"{video}\n"
    assert call(settings, "open", "bad").stdout == f"{settings.folders.failed / 'bad'}\n"
    assert "nothing to open" in str(call(settings, "open", "open").exception)
    ledger.db.execute("UPDATE jobs SET first_part = 'open.part' WHERE name = 'open'")
    first = settings.folders.outbox / "open.part" / "first.mp4"
    first.parent.mkdir()
    first.touch()
    assert call(settings, "open", "open").stdout == f"{first}\n"
    ledger.close()


def test_open_finds_the_folder_of_the_job_itself(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where failed/NAME is an earlier job's, the files of this one are in failed/NAME-2, and so its row says."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for name in ("bad", "bad-2"):
        (settings.folders.failed / name).mkdir()
    ledger.update("uid-bad", inputs="share:failed/bad-2")
    assert call(settings, "open", "bad").stdout == f"{settings.folders.failed / 'bad-2'}\n"
    ledger.close()


def test_every_command_that_prints_facts_prints_json(settings: Settings, ledger: Ledger) -> None:
    """A list for several things, an object for one; each documented row works, and nothing else is on stdout."""
    (settings.folders.failed / "bad").mkdir()
    rows = re.findall(r"^\| (`.*`) \|", section_of_json(), re.MULTILINE)
    assert {"`cancel`, `retry`, `priority`", "`open NAME`", "`snapshot`", "`devices`"} <= set(rows)
    assert json.loads(call(settings, "open", "bad", "--json").stdout) == {
        "name": "bad",
        "uid": "uid-bad",
        "state": "failed",
        "path": str(settings.folders.failed / "bad"),
    }
    assert json.loads(call(settings, "cancel", "open", "--json").stdout) == [{"name": "open", "uid": "uid-open"}]
    assert json.loads(call(settings, "retry", "bad", "--json").stdout) == [{"name": "bad", "uid": "uid-bad"}]
    refused = call(settings, "retry", "done", "--json")
    assert (refused.exit_code, json.loads(refused.stdout)) == (2, [])
    assert json.loads(call(settings, "snapshot", "--json").stdout) == {"path": str(settings.folders.snapshot)}
    for words in (["status"], ["devices"], ["logs"], ["avatar", "list"]):
        assert isinstance(json.loads(call(settings, *words, "--json").stdout), list)
    ledger.close()


def section_of_json() -> str:
    return (ROOT / "docs" / "commands.md").read_text().partition("## JSON")[2].partition("\n## ")[0]


def test_a_chinese_terminal_gets_chinese(
    settings: Settings, ledger: Ledger, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables, errors with their hints, and what the commands say; names stay, also those that are sentences."""
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    error = JobError(ErrorCode.NO_FACE, "no face was found in [red]脸.jpg", ErrorCode.TIMEOUT.hint)
    job = add_job(ledger, "u1", name="no jobs yet")
    empty = call(settings, "status").output
    assert "排队" in empty
    assert "no jobs yet" in empty
    ledger.transitions.fail(job, error, at_ms=2000)
    listed = call(settings, "status")
    assert "名称" in listed.stdout
    assert "失败" in listed.stdout
    assert "no_face: 在 [red]脸.jpg 中没有找到人脸" in listed.stdout
    assert "服务没有运行" in listed.stderr
    shown = call(settings, "status", "no jobs yet").stdout
    assert "给它更多时间" in shown
    assert "name           no jobs yet" in shown
    assert json.loads(call(settings, "status", "no jobs yet", "--json").stdout)["error_message"] == error.message
    assert "u9" in call(settings, "cancel", "u9").stderr
    assert "没有名为 u9 的任务" in call(settings, "cancel", "u9").stderr
    assert "已在收件箱中" in call(settings, "submit", media / "one.wav", "--avatar", media / "me.jpg").stdout
    assert "没有设备" in call(settings, "devices").stdout
    assert "在运行 `musedrop resume` 之前" in call(settings, "pause").stdout
