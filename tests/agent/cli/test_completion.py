"""What a shell completes: names of the ledger and the library, and never an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.main import app
from agent.fs.folders import make_folders
from agent.ledger.ledger import Ledger
from agent.settings_file import load_settings
from gpu_pool.types import Device
from tests.agent.samples import add_job


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings with a job, an avatar and a device."""
    path = tmp_path / "musedrop.toml"
    path.write_text('share = "share"\nstate = "state"\n')
    folders = load_settings(path).folders
    make_folders((*folders.of_share, *folders.of_state))
    (folders.avatars / "anna.jpg").write_bytes(b"face")
    ledger = Ledger(folders.ledger)
    add_job(ledger, "u1", name="hello")
    ledger.devices.record(Device("cpu:0", "cpu"), at_ms=0)
    ledger.close()
    return path


def complete(config: Path, line: str) -> list[str]:
    """Return what bash gets for the last word of a command line."""
    words = f"musedrop {line}"
    env = {
        "_MUSEDROP_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "MUSEDROP_CONFIG": str(config),
    }
    return CliRunner().invoke(app, prog_name="musedrop", env=env).output.split()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("status he", ["hello"]),
        ("status x", []),
        ("avatar remove an", ["anna"]),
        ("drain c", ["cpu:0"]),
        ("submit a.wav --engine mu", ["musetalk"]),
        ("submit a.wav --encoder lib", ["libx264"]),
        ("submit a.wav --strategy sp", ["split"]),
        ("submit a.wav --priority hi", ["high"]),
        ("submit a.wav --avatar a", ["anna"]),
    ],
)
def test_names_are_completed_from_the_ledger_and_the_library(config: Path, line: str, found: list[str]) -> None:
    """Jobs, avatars, devices, and the words of options."""
    assert complete(config, line) == found


@pytest.mark.parametrize("text", ["", "share = 1", 'share = "s"\nstate = "t"\n'])
@pytest.mark.parametrize("line", ["status he", "avatar remove an", "drain c"])
def test_without_settings_or_a_ledger_nothing_is_found(tmp_path: Path, text: str, line: str) -> None:
    """A shell shows no traceback."""
    config = tmp_path / "musedrop.toml"
    config.write_text(text)
    assert complete(config, line) == []
