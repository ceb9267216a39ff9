"""README as a reader types it: its blocks in bash, line by line, in a fresh home.

Two things take the place of the network. The checkout of the reader is a copy of this one whose `.venv` holds the
programs of the environment that runs the tests; its `pip` records what it is asked to install, and that it was asked
in a checkout. The downloads of `musedrop models fetch` are refused by an address where nothing listens.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import need
from tests.share import ROOT, until

COPIED = ("README.md", "Makefile", "pyproject.toml", "agent", "gpu_pool", "models", "systemd", "inbox_example")
PIP = """#!/bin/sh
[ -f pyproject.toml ] || { echo "no project here: $PWD" >&2; exit 1; }
echo "$*" >> "$HOME/pip.log"
"""
MAY_FAIL = ("musedrop models fetch",)
"""Lines that need what a test does not have: they must fail for that reason alone."""
REFUSED = "http://127.0.0.1:9"


def list_blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def make_checkout(folder: Path) -> None:
    """Copy the project, with a `.venv` as `make demo` leaves it."""
    for name in COPIED:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    write_program(programs / "pip", PIP)
    write_program(
        programs / "musedrop", f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} -m agent.cli.main "$@"\n'
    )
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    (folder / ".venv" / ".installed").touch()


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def make_script(blocks: list[str]) -> str:
    """Return the blocks as one script that stops at the first line that fails."""
    lines = ["set -eu", "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
    for block in blocks:
        for line in block.splitlines():
            lines.append(f"echo '--- '{quote(line)}")
            lines += ["{", line, "} || true"] if line.startswith(MAY_FAIL) else [line]
    return "\n".join(lines) + "\n"


def quote(line: str) -> str:
    return "'" + line.replace("'", "'\\''") + "'"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_readme_works_as_typed(tmp_path: Path) -> None:
    """Every line of every block does what its comment says, in order, in one shell."""
    need("make", "make")
    need("sqlite3", "sqlite3")
    checkout, home = tmp_path / "musedrop-checkout", tmp_path / "home"
    checkout.mkdir()
    home.mkdir()
    make_checkout(checkout)
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "TZ") if key in os.environ}
    env = {**kept, "HOME": str(home), "COLUMNS": "120", "HF_ENDPOINT": REFUSED}
    script = make_script(list_blocks())
    with subprocess.Popen(
        ["bash", "-c", script], cwd=checkout, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as shell:
        shown = shell.communicate(timeout=580)[0]
    assert shell.returncode == 0, shown
    share = home / "musedrop" / "share"
    assert (checkout / "demo" / "share" / "outbox" / "portrait" / "result.mp4").is_file()
    for name in ("hello", "anna", "again"):
        kept_files = {path.name for path in (share / "outbox" / name).iterdir()}
        assert kept_files == {"result.mp4", "result.json", "preview.jpg", "contact.jpg"}
    assert "result.mp4" in shown.partition("--- ls share/outbox/hello")[2].partition("--- ")[0]
    assert (share / "avatars" / "anna.jpg").is_file()
    assert "127.0.0.1:9" in shown.partition("--- musedrop models fetch")[2]
    assert ".[musetalk]" in (home / "pip.log").read_text()
    assert "done" in shown.partition("--- musedrop status")[2].partition("--- ")[0]
    assert "hello|done" in shown.partition("--- sqlite3")[2]
    assert "Traceback" not in shown
    until(lambda: "stopped" in (home / "musedrop" / "daemon.log").read_text(), 60, lambda: shown)
