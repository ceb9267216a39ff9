"""`musedrop service`: which files it plans for which program, share and user."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.service import app, plan_files
from agent.cli.systemctl import write_or_restore
from agent.cli.systemd_units import UnitFile
from agent.errors import UserError
from agent.settings_file import load_settings


def test_a_program_in_a_home_folder_sees_the_service_and_can_remove_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the program matters for `install` only."""
    monkeypatch.setattr(sys, "argv", ["/home/anna/.venv/bin/musedrop"])
    monkeypatch.setattr("agent.cli.service.SYSTEM_SETTINGS", Path("/nowhere/musedrop.toml"))
    monkeypatch.setattr("agent.cli.systemctl.BOOTED", Path("/"))
    assert "/home/anna/.venv/bin/musedrop run " in plan_files(user=False, share=None)[3].text
    refused = CliRunner().invoke(app, ["install", "--yes"])
    assert "is in a home folder" in str(refused.exception)


def test_the_users_share_is_the_one_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is relative to the working directory; settings that name another share are an error."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    files = plan_files(user=True, share=Path("x"))
    with write_or_restore(files):
        pass
    assert load_settings(files[0].path).share == tmp_path / "x"
    assert plan_files(user=True, share=Path("x"))[0].state == "there already"
    with pytest.raises(UserError, match=r"musedrop\.toml names the share .*/x: change it there"):
        plan_files(user=True, share=Path("other"))
    files[0].path.write_text("nonsense")
    assert plan_files(user=True, share=None)


@pytest.mark.parametrize("words", [["install", "--user", "--yes"], ["uninstall", "--user", "--yes"], ["status"]])
def test_a_machine_without_systemd_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """No command of systemd is called, nothing is written, and the sentence says what to do instead."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("agent.cli.systemctl.BOOTED", tmp_path / "nowhere")
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, UserError)
    assert "`musedrop run`" in str(refused.exception)
    assert "systemctl" not in str(refused.exception)
    assert list(tmp_path.iterdir()) == []


def test_an_installation_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New files and their folders go, and a changed file has its old text again."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("agent.cli.systemctl.BOOTED", tmp_path)

    def fail(*_: object) -> None:
        raise UserError("no bus")

    monkeypatch.setattr("agent.cli.systemctl.Systemd.reload", fail)
    old = tmp_path / ".config" / "systemd" / "user" / "musedrop.service"
    old.parent.mkdir(parents=True)
    old.write_text("older")
    refused = CliRunner().invoke(app, ["install", "--user", "--yes", "--share", str(tmp_path / "share")])
    assert str(refused.exception) == "no bus"
    assert old.read_text() == "older"
    assert [path for path in (tmp_path / ".config").rglob("*") if path.is_file()] == [old]
    with write_or_restore([UnitFile(tmp_path / "x" / "y", "text")]):
        pass
    assert (tmp_path / "x" / "y").read_text() == "text"
