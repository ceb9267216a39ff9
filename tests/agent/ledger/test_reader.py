"""Readers of the ledger: beside a daemon, without one, without permission to write."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agent.ledger.ledger import Ledger
from agent.ledger.reader import LedgerError, open_reader
from tests.agent.samples import a_ledger, add_job


def test_another_process_reads_while_the_daemon_writes(tmp_path: Path) -> None:
    """A reader sees committed rows at once and can't write."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "u1", name="hello")
    db = open_reader(tmp_path / "state" / "jobs.db")
    assert list(db.query("SELECT name FROM job_status")) == [{"name": "hello"}]
    add_job(ledger, "u2", name="again")
    assert len(list(db.query("SELECT name FROM job_status"))) == 2
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM jobs")


def test_a_reader_without_write_permission_reads_a_ledger_at_rest() -> None:
    """After the daemon has stopped, its files are read as they lie, by a user who may only read them."""
    root = Path(__file__).parents[3]
    code = (
        "import os, sys; from pathlib import Path; from agent.ledger.reader import open_reader\n"
        "os.getuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534))\n"
        "print([row['name'] for row in open_reader(Path(sys.argv[1])).query('SELECT name FROM job_status')])"
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        ledger = Ledger(path)
        add_job(ledger, "u1", name="hello")
        ledger.close()
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", code, str(path)]
        run = subprocess.run(command, capture_output=True, text=True, cwd=root)
        Path(folder).chmod(0o755)
    assert run.stdout == "['hello']\n", run.stderr


@pytest.mark.parametrize("make_odd", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_a_ledger_that_is_no_file_is_named(tmp_path: Path, make_odd: Callable[[Path], None], end: str) -> None:
    """SQLite would call a pipe a full disk, and the daemon would wait for room for ever; so for the files beside it."""
    path = tmp_path / "jobs.db"
    if end:
        Ledger(path).close()
    make_odd(tmp_path / f"jobs.db{end}")
    for open_one in (Ledger, open_reader):
        with pytest.raises(LedgerError, match=f"{end or 'it'}( beside it)? must be a file"):
            open_one(path)


def test_no_ledger_is_said_clearly(tmp_path: Path) -> None:
    """Asking before the daemon ever ran names the file and the likely reason."""
    with pytest.raises(LedgerError, match="has the daemon run"):
        open_reader(tmp_path / "jobs.db")
