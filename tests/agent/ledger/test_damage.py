"""A damaged ledger: one sentence that says what to do, and exit code 2, never a traceback."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.jobs.states import JobState
from agent.ledger import damage
from agent.ledger.damage import DamageCheck
from agent.ledger.ledger import Ledger
from agent.ledger.reader import LedgerError, open_reader
from tests.agent.samples import add_job

PAGE = 4096


def overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


def spoil_table(path: Path) -> None:
    """Overwrite the first page of the jobs."""
    with closing(sqlite3.connect(path)) as conn:
        [page] = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'").fetchone()
    overwrite(path, (page - 1) * PAGE, b"\xff" * PAGE)


def spoil_text(path: Path) -> None:
    """Make a name that is no UTF-8, as a flipped bit does."""
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("UPDATE jobs SET name = CAST(x'ff41' AS TEXT)")
        conn.commit()


def cut(path: Path) -> None:
    """Lose the end of the file."""
    path.write_bytes(path.read_bytes()[: 5 * PAGE])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "header": lambda path: overwrite(path, 0, b"no SQLite header"),
    "cut": cut,
    "table": spoil_table,
    "text": spoil_text,
}
COMMANDS = [
    ["status"],
    ["status", "job1"],
    ["devices"],
    ["retry", "job1"],
    ["cancel", "job1"],
    ["snapshot"],
    ["run"],
    ["doctor"],
    ["watch"],
    ["wait", "job1"],
    ["logs", "job1"],
    ["open", "job1"],
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings, a share, and the ledger of a daemon that was killed."""
    (tmp_path / "share" / "inbox").mkdir(parents=True)
    (tmp_path / "musedrop.toml").write_text('share = "share"\nstate = "state"\n')
    ledger = Ledger(tmp_path / "state" / "jobs.db")
    for number in range(50):
        add_job(ledger, f"job{number}", state=JobState.DONE)
    ledger.close()
    (tmp_path / "state" / "daemon.running").touch()
    return tmp_path / "musedrop.toml"


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["musedrop", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("kind", DAMAGES)
def test_each_command_says_it_in_words(
    config: Path, kind: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is damaged, and what to do; a command that needs none of the damaged pages may work."""
    DAMAGES[kind](config.parent / "state" / "jobs.db")
    code = call(monkeypatch, *command, "--config", str(config))
    told = capfd.readouterr().err
    assert "Traceback" not in told
    if code == 2:
        assert "damaged" in told
        assert "restore" in told
    else:
        may = {(3, "devices", "text"), (0, "snapshot", "text"), (3, "devices", "table"), (1, "doctor", "text")}
        assert (code, command[0], kind) in may


def test_a_row_that_is_no_job_any_more_is_damage(tmp_path: Path) -> None:
    """No check of SQLite finds it; reading the row does."""
    ledger = Ledger(tmp_path / "jobs.db")
    add_job(ledger, "u1")
    ledger.db.execute("UPDATE jobs SET media = '{'")
    with pytest.raises(LedgerError, match="row 1 of the ledger is damaged"):
        ledger.job("u1")
    ledger.close()


def test_a_large_ledger_is_checked_beside_the_work(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon starts at once, and ends when the damage is found."""
    path, mark = config.parent / "state" / "jobs.db", config.parent / "state" / "daemon.running"
    monkeypatch.setattr(damage, "AT_ONCE_BYTES", 0)
    spoil_table(path)
    check = DamageCheck(path, mark)
    assert check._thread is not None
    check._thread.join()
    with pytest.raises(LedgerError, match="damaged"):
        check.raise_found()
    check.close(clean=True)
    assert mark.exists()


def test_a_clean_end_needs_no_check(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark is there from the start to a clean end."""
    path, mark = config.parent / "state" / "jobs.db", config.parent / "state" / "daemon.running"
    mark.unlink()
    monkeypatch.setattr(damage, "find_damage", lambda *_: pytest.fail("the ledger was read"))
    check = DamageCheck(path, mark)
    assert mark.exists()
    check.close(clean=True)
    assert not mark.exists()


def test_an_empty_file_is_no_ledger_for_a_reader(tmp_path: Path) -> None:
    """It has no views; the sentence names the file."""
    (tmp_path / "jobs.db").touch()
    with pytest.raises(LedgerError, match="not a ledger of musedrop"):
        open_reader(tmp_path / "jobs.db")


def test_a_ledger_that_can_not_be_opened_is_said(tmp_path: Path) -> None:
    """A folder has its name: by the daemon and by readers."""
    (tmp_path / "jobs.db").mkdir()
    with pytest.raises(LedgerError, match="can't be opened"):
        Ledger(tmp_path / "jobs.db")
    with pytest.raises(LedgerError, match="can't be opened"):
        open_reader(tmp_path / "jobs.db")


@pytest.mark.parametrize("text", ["[", "[1]", "7", '"x"'])
def test_what_is_remembered_is_an_object_or_damage(tmp_path: Path, text: str) -> None:
    """Neither a daemon that starts nor one that runs ends with a traceback."""
    ledger = Ledger(tmp_path / "jobs.db")
    ledger.remember("clock_history", text)
    with pytest.raises(LedgerError, match="clock_history is damaged"):
        ledger.recall_object("clock_history")
    assert ledger.recall_object("other") == {}
    ledger.close()
