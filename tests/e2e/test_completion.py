"""Completion in real shells: installed by its own option, then used with the tab key on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from agent.fs.folders import make_folders
from agent.ledger.ledger import Ledger
from agent.settings_file import load_settings
from tests.agent.samples import add_job
from tests.needs import need
from tests.share import ROOT

WAIT_S = 60.0
SHELLS = {"bash": ["bash", "-i"], "zsh": ["zsh", "-i"], "fish": ["fish", "-i"]}


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, words: list[str], env: dict[str, str], folder: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(words[0], words, env)  # noqa: S606  the shell that is tested
        self.shown = ""

    def type(self, keys: str) -> None:
        self.shown = ""
        os.write(self.fd, keys.encode())

    def wait_for(self, *texts: str, timeout_s: float = WAIT_S) -> None:
        """Read until all texts were shown since the last keys."""
        end_s = time.monotonic() + timeout_s
        while not all(text in self.shown for text in texts):
            assert time.monotonic() < end_s, f"{texts} not in {self.shown!r}"
            if select.select([self.fd], [], [], 0.5)[0]:
                data = os.read(self.fd, 1 << 16).decode("utf-8", "replace")
                self.shown += data
                if "\x1b[c" in data:  # fish asks what the terminal can
                    os.write(self.fd, b"\x1b[?62;c")

    def complete(self, keys: str, text: str) -> None:
        """Press tab until a text is shown: zsh does nothing but load the script the first time."""
        self.type(keys)
        end_s = time.monotonic() + WAIT_S
        while text not in self.shown:
            assert time.monotonic() < end_s, f"{text} not in {self.shown!r}"
            os.write(self.fd, b"\t")
            with suppress(AssertionError):
                self.wait_for(text, timeout_s=10.0)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


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
