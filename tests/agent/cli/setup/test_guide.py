"""What `musedrop setup` offers, and what it does unasked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.cli import service, systemctl
from agent.cli.doctor import Finding
from agent.cli.setup import guide as guides
from agent.cli.setup.guide import Guide
from agent.settings import Settings
from agent.setup import steps
from models import catalog


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the guide does, instead of doing it, on a machine with systemd and the packages of MuseTalk."""
    deeds: list[str] = []

    class Manager:
        def __init__(self, *, user: bool) -> None:
            self.user = user

        def start(self) -> None:
            deeds.append(f"start user={self.user}")

    def spawn(_mode: int, _program: str, words: list[str]) -> int:
        deeds.append(" ".join(words[1:3]))
        return 1

    monkeypatch.setattr(os, "spawnv", spawn)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(systemctl, "BOOTED", Path("/"))
    monkeypatch.setattr(systemctl, "Systemd", Manager)
    monkeypatch.setattr(service, "install", lambda *, user, yes: deeds.append(f"install user={user} yes={yes}"))
    monkeypatch.setattr(catalog, "find_missing_packages", lambda _: [])
    return deeds


@pytest.fixture
def mine(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> steps.Place:
    """A set-up whose settings a service of this user would read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    source = tmp_path / ".config" / "musedrop" / "musedrop.toml"
    return steps.Place(settings.folders, source, settings.models_dir)


def make_guide(*, yes: bool = True) -> Guide:
    return Guide(Console(width=120, record=True), yes=yes)


def test_yes_downloads_nothing_and_installs_nothing(mine: steps.Place, done: list[str]) -> None:
    """4 GB and a service need a word of their own; what to run is said."""
    guide = make_guide()
    guide.offer_weights(mine, None)
    guide.offer_service(mine, None)
    assert done == []
    told = guide.console.export_text()
    assert "musedrop models fetch -c" in told
    assert "systemctl --user enable --now musedrop" in told


def test_flags_download_and_install(mine: steps.Place, done: list[str]) -> None:
    """A download that fails does not end the set-up."""
    guide = make_guide()
    guide.offer_weights(mine, True)
    guide.offer_service(mine, True)
    assert done == ["-m models.musetalk", "install user=True yes=True", "start user=True"]
    assert "The download did not finish" in guide.console.export_text()


def test_a_service_that_would_read_other_settings_is_not_offered(
    mine: steps.Place, done: list[str], settings: Settings
) -> None:
    """Nor one of the machine to a user without rights: the command is shown."""
    guide = make_guide()
    guide.offer_service(steps.Place(mine.folders, settings.share / "musedrop.toml", mine.models_dir), True)
    guide.offer_service(steps.Place(mine.folders, steps.SYSTEM_SETTINGS, mine.models_dir), True)
    assert done == []
    assert "sudo musedrop service install" in guide.console.export_text()


def test_the_state_of_another_user_gets_no_second_daemon(
    mine: steps.Place, settings: Settings, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clip is left to the daemon of that user."""
    settings.state.mkdir(exist_ok=True)
    monkeypatch.setattr(os, "geteuid", lambda: settings.state.stat().st_uid + 1)
    guide = make_guide()
    guide.offer_demo(mine, settings, True)
    assert "start it first" in guide.console.export_text()
    assert done == []


@pytest.mark.parametrize(("verdicts", "code"), [(["ok", "note"], 0), (["ok", "bad"], 1)])
def test_the_check_decides_the_exit_code(
    settings: Settings, verdicts: list[Any], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note is no fault."""
    monkeypatch.setattr(guides, "examine", lambda _: (Finding(verdict, "what", "found") for verdict in verdicts))
    assert make_guide().check(settings) == code
