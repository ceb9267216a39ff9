"""`musedrop service`: which files it plans for which program, share and user."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.service import app, plan_files
from agent.cli.systemctl import write_files
from agent.errors import UserError
from agent.settings_file import load_settings


def test_a_program_in_a_home_folder_sees_the_service_and_can_remove_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the program matters for `install` only."""
    monkeypatch.setattr(sys, "argv", ["/home/anna/.venv/bin/musedrop"])
    monkeypatch.setattr("agent.cli.service.SYSTEM_SETTINGS", Path("/nowhere/musedrop.toml"))
    assert "/home/anna/.venv/bin/musedrop run " in plan_files(user=False, share=None)[3].text
    refused = CliRunner().invoke(app, ["install", "--yes"])
    assert "is in a home folder" in str(refused.exception)


def test_the_users_share_is_the_one_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is relative to the working directory; settings that name another share are an error."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    files = plan_files(user=True, share=Path("x"))
    write_files(files)
    assert load_settings(files[0].path).share == tmp_path / "x"
    assert plan_files(user=True, share=Path("x"))[0].state == "there already"
    with pytest.raises(UserError, match=r"musedrop\.toml names the share .*/x: change it there"):
        plan_files(user=True, share=Path("other"))
    files[0].path.write_text("nonsense")
    assert plan_files(user=True, share=None)
