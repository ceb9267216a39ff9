"""Whether the ledger's file is whole: asked after a daemon that was killed, since a full read takes time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Thread

from agent.fs import create_empty, follow_links
from agent.ledger.reader import LedgerError, connect, make_damage_error, name_damage

AT_ONCE_BYTES = 64 << 20
"""A file up to this size is read before the daemon starts; a larger one beside its work."""


def find_damage(conn: sqlite3.Connection, path: Path) -> LedgerError | None:
    """Read the whole file; return what is wrong with it."""
    try:
        with name_damage(path):
            found = str(conn.execute("PRAGMA quick_check(1)").fetchone()[0])
    except LedgerError as error:
        return error
    except sqlite3.OperationalError:
        return None  # interrupted, or busy with something else
    return None if found == "ok" else make_damage_error(path, found.replace("\n", " "))


class DamageCheck:
    """A file `mark` is there while a daemon runs. One that is left by a killed daemon asks for the check.

    Raises LedgerError at once for a small ledger that is damaged; `raise_found` does for a large one, later.
    """

    def __init__(self, path: Path, mark: Path) -> None:
        self._mark = mark
        self._found: LedgerError | None = None
        self._thread: Thread | None = None
        self._conn: sqlite3.Connection | None = None
        if mark.exists():
            self._start(path)
        create_empty(mark)

    def _start(self, path: Path) -> None:
        if path.stat().st_size <= AT_ONCE_BYTES:
            with closing(connect(path, read_only=True)) as conn:
                self._found = find_damage(conn, path)
            self.raise_found()
            return
        self._conn = sqlite3.connect(f"{follow_links(path).as_uri()}?mode=ro", uri=True, check_same_thread=False)
        self._thread = Thread(target=self._read, args=(self._conn, path), name="damage check", daemon=True)
        self._thread.start()

    def _read(self, conn: sqlite3.Connection, path: Path) -> None:
        self._found = find_damage(conn, path)

    def raise_found(self) -> None:
        """Raise LedgerError if the ledger is damaged."""
        if self._found is not None:
            raise self._found

    def close(self, *, clean: bool) -> None:
        """End a check that runs. A clean end needs no check at the next start, if this one was whole."""
        is_whole = self._found is None
        if self._thread is not None and self._conn is not None:
            is_whole &= not self._thread.is_alive()
            self._conn.interrupt()
            self._thread.join()
            self._conn.close()
        if clean and is_whole:
            self._mark.unlink(missing_ok=True)
