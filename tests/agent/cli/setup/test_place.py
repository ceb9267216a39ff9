"""Where a new set-up goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from agent.cli.setup import place
from agent.cli.setup.guide import Guide
from agent.cli.setup.place import find_or_make
from agent.errors import UserError
from agent.settings_file import BadSettings, load_settings


class Answers:
    """Takes the place of a person: proposals, and one answer to every question."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer

    def ask_path(self, _question: str, proposal: Path) -> Path:
        return proposal

    def confirm(self, _question: str, *, given: bool | None, proposal: bool) -> bool:
        assert (given, proposal) == (None, False)
        return self.answer


def find(folder: Path | None = None, config: Path | None = None, answer: bool = True) -> Path:
    return find_or_make(cast("Guide", Answers(answer)), folder, config, service=None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without settings, in an empty folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MUSEDROP_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


def test_a_user_gets_a_share_in_the_home_and_a_state_beside_it(home: Path) -> None:
    """The settings are where a service of this user reads them; a second call takes and keeps them."""
    source = find()
    settings = load_settings(source)
    assert source == home / ".config" / "musedrop" / "musedrop.toml"
    assert (settings.share, settings.state) == (home / "musedrop", home / ".local" / "state" / "musedrop")
    assert settings.folders.inbox.is_dir()
    source.write_text(source.read_text() + "# mine\n")
    assert find() == source
    assert source.read_text().endswith("# mine\n")


def test_a_folder_holds_all_and_is_never_written_over(home: Path) -> None:
    """Share, state and settings are in it."""
    source = find(home / "here")
    assert load_settings(source).share == home / "here" / "share"
    before = source.read_bytes(), source.stat().st_mtime_ns
    assert find(home / "here") == source
    assert before == (source.read_bytes(), source.stat().st_mtime_ns)


def test_settings_that_are_named_must_be_there(home: Path) -> None:
    """A mistyped --config makes nothing."""
    with pytest.raises(BadSettings, match="looked for"):
        find(config=home / "typo.toml")
    assert list(home.iterdir()) == []


def test_root_is_asked_for_the_service_of_the_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemd a folder must be given; with it, no is no."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(place, "BOOTED", home / "nowhere")
    with pytest.raises(UserError, match="give a folder"):
        find()
    monkeypatch.setattr(place, "BOOTED", home)
    with pytest.raises(UserError, match="nothing was changed"):
        find(answer=False)
    assert list(home.iterdir()) == []
