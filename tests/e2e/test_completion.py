"""Completion in real shells: installed by its own option, then used with the tab key on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.fs.folders import make_folders
from agent.ledger.ledger import Ledger
from agent.settings_file import load_settings
from tests.agent.samples import add_job
from tests.e2e.terminal import Terminal
from tests.needs import need
from tests.share import ROOT

SHELLS = {"bash": ["bash", "-i"], "zsh": ["zsh", "-i"], "fish": ["fish", "-i"]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a program `musedrop`, settings, and two jobs."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "musedrop"
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from agent.cli.main import main; main()"
    program.write_text(f"#!{sys.executable}\n{start}\n")
    program.chmod(0o755)
    (tmp_path / ".zshrc").touch()
    # Without this folder a new fish reads all man pages of the machine, for a minute, in a process that outlives it.
    (tmp_path / ".local" / "share" / "fish" / "generated_completions").mkdir(parents=True)
    config = tmp_path / "musedrop.toml"
    config.write_text('share = "share"\nstate = "state"\n')
    folders = load_settings(config).folders
    make_folders((*folders.of_share, *folders.of_state))
    ledger = Ledger(folders.ledger)
    add_job(ledger, "u1", name="hello")
    add_job(ledger, "u2", name="my job (2) $x")
    ledger.close()
    return tmp_path


@pytest.fixture
def open_shell(home: Path) -> Callable[[str], Terminal]:
    env = {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "TERM": "xterm", "COLUMNS": "200"}
    env |= {"LANG": "C.UTF-8", "SHELL": "/bin/sh", "PS1": "$ "}
    return lambda shell: Terminal(SHELLS[shell], env, home)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.timeout(400)
def test_names_are_completed_by_the_tab_key(open_shell: Callable[[str], Terminal], shell: str) -> None:
    """Also one with spaces and brackets, so that the command gets it as one word."""
    need(shell, shell)
    terminal = open_shell(shell)
    terminal.type("musedrop --install-completion\n")
    terminal.wait_for("completion installed")
    terminal.close()
    terminal = open_shell(shell)
    terminal.complete("musedrop status he", "hello")
    terminal.type(" --json\n")
    terminal.wait_for('"uid": "u1"')
    terminal.complete("musedrop status my", "2")
    terminal.type(" --json\n")
    terminal.wait_for('"uid": "u2"')
    terminal.close()
