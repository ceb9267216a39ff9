"""`musedrop models`: the command of the engine that it becomes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.models import app
from agent.settings import Settings


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (
            ["fetch", "--version", "v1", "--any-release", "a.pth"],
            ["fetch", "--version", "v1", "--any-release", "--", "a.pth"],
        ),
        (["verify", "--quick", "--json"], ["verify", "--quick", "--json"]),
        (["import", "/old", "--precision", "fp16"], ["import", "--precision", "fp16", "--", "/old"]),
    ],
)
def test_the_process_is_replaced(
    given: list[str], passed: list[str], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arguments and the models folder of the settings go to `python -m models.musetalk`."""
    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: calls.append(command))
    CliRunner().invoke(app, [*given, "-c", str(tmp_path / "musedrop.toml")])
    folder = str(settings.models_dir)
    assert calls == [[sys.executable, "-m", "models.musetalk", "--models-dir", folder, *passed]]
