"""Opening the ledger file: read-write for the daemon, read-only for all others."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from agent.errors import UserError
from agent.ledger.sqlite import Database


class LedgerError(UserError):
    """The ledger can't be used; the message says why and what to do."""


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=5.0)


def open_reader(path: Path) -> Database:
    """Open the ledger for reading, also as a user who may not write to its folder. Raises LedgerError.

    SQLite needs write access to build the shared-memory index of a ledger that no daemon has open.
    Then the file does not change either, and is read as immutable.
    """
    if not path.exists():
        raise LedgerError(f"there is no ledger at {path}: has the daemon run with these settings?")
    conn = connect(path, read_only=True)
    try:
        conn.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        conn.close()
        conn = sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)
    return Database(conn, execute_plugins=False)
