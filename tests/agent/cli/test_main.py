"""The command line: what it loads, its options and its exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.cli.options import parse_options
from agent.errors import UserError
from tests.share import ROOT


def test_init_does_not_load_the_daemon(tmp_path: Path) -> None:
    """`musedrop init` creates the share in a process that has imported neither the daemon nor the pool."""
    code = (
        "import sys; from agent.cli.main import app; app(['init', sys.argv[1]], standalone_mode=False);"
        "print(sorted({'agent.daemon', 'agent.ledger', 'gpu_pool'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "share" / "inbox").is_dir()
    assert (tmp_path / "state").is_dir()


def test_values_of_options_are_json_or_text() -> None:
    """Numbers, booleans and lists keep their type; every other text is a string."""
    assert parse_options(["a=1", "b=true", "c=x=y", "d=[1]"]) == {"a": 1, "b": True, "c": "x=y", "d": [1]}
    assert parse_options(None) == {}
    with pytest.raises(UserError, match="NAME=VALUE"):
        parse_options(["label"])


@pytest.mark.parametrize(("text", "code"), [("share = 1", 78), ("", 78), ('share = "."\nstate = "./state"', 2)])
def test_errors_are_one_line_and_an_exit_code(
    text: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """78 for bad settings, so that systemd doesn't restart the service, and 2 for other errors of the user."""
    (tmp_path / "musedrop.toml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["musedrop", "status", "-c", str(tmp_path / "musedrop.toml")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == code
    assert capsys.readouterr().err.startswith("musedrop: ")


def test_a_state_folder_with_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    """The daemon names it in one line."""
    (tmp_path / "musedrop.toml").write_text('share = "share"\nstate = "state"')
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "work").touch()
    command = [sys.executable, "-m", "agent.cli.main", "run", "-c", str(tmp_path / "musedrop.toml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 2
    assert "state/work is a link or a file" in done.stderr
    assert "Traceback" not in done.stderr
