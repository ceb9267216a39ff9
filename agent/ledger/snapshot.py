"""A copy of the ledger that is one plain file, for readers that can't open the ledger itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from agent.fs import atomic_write
from agent.ledger.reader import LedgerError, open_reader


def copy_ledger(ledger: Path, target: Path) -> None:
    """Replace `target` by a compact copy of the ledger that is not in WAL mode; no reader sees it half-written.

    The ledger is only read, and a daemon may have it open. Raises LedgerError, or an OSError of the rename.
    """
    if target.resolve() == ledger.resolve():
        raise LedgerError(f"{target} is the ledger itself: name another file for the copy")
    with atomic_write(target.absolute()) as temp:
        _copy(ledger, temp)


def _copy(ledger: Path, target: Path) -> None:
    try:
        with closing(open_reader(ledger)) as db:
            # no other process knows the new file, and locks of network shares are unreliable
            db.conn.execute("VACUUM INTO ?", [f"{target.as_uri()}?nolock=1"])
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger can't be copied to {target.parent} ({error})") from error
