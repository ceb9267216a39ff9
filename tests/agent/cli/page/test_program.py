"""The command `musedrop page` becomes a process that knows what the page reads of the settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent.cli.page import program
from agent.cli.page.launch import GIVEN, become_page
from agent.settings import Settings


@pytest.fixture
def given(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the process is given, for an address that other machines reach."""
    started: list[tuple[Any, ...]] = []
    monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
    become_page(settings, Path("here.toml"), "0.0.0.0:1")
    [(_, command, env)] = started
    assert command[-1] == program.__name__
    return str(env[GIVEN])


def test_the_settings_arrive(settings: Settings, given: str) -> None:
    """Folders and values are those of the settings."""
    arrived, source, address = program.read_given(given)
    assert (source, address) == (Path("here.toml"), "0.0.0.0:1")
    assert (arrived.share, arrived.folders) == (settings.share, settings.folders)
    assert list(arrived.page.hosts) == list(settings.page.hosts)
    for read in (
        lambda one: (one.page.token_file, one.page.idle_s, one.limits.media_mib, one.inbox.max_job_bytes),
        lambda one: (list(one.speech.command), one.log.format, one.log.level),
    ):
        assert read(arrived) == read(settings)


def test_what_is_wrong_is_said(given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An address that may not be used ends the process as it ends every command."""
    monkeypatch.setenv(GIVEN, given)
    monkeypatch.setattr(program, "configure_logging", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    assert "page.token_file" in capsys.readouterr().err
