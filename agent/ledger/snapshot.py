"""A copy of the ledger that is one plain file, for readers that can't open the ledger itself."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.fs import atomic_copy, discard, follow_links, try_lock
from agent.ledger.reader import LedgerError, name_damage, open_reader

SCRATCH = ".copy-"
"""How the name of a folder begins in which a copy is made."""


def copy_ledger(ledger: Path, target: Path) -> None:
    """Replace `target` by a compact copy of the ledger that is not in WAL mode; no reader sees it half-written.

    The ledger is only read, and a daemon may have it open. SQLite opens files by name, so it writes where no other
    user can replace them, and the whole copy is written to `target`. Raises LedgerError, or an OSError of `target`.
    """
    if follow_links(target) == follow_links(ledger):
        raise LedgerError(f"{target} is the ledger itself: name another file for the copy")
    if not target.parent.is_dir():
        raise LedgerError(f"the ledger can't be copied: there is no folder {target.parent}")
    state = ledger.parent if os.access(ledger.parent, os.W_OK) else None
    with TemporaryDirectory(prefix=SCRATCH, dir=state) as scratch, _lock(scratch):
        copy = Path(scratch, "copy.db")
        _copy(ledger, copy)
        atomic_copy(copy, Path(os.path.realpath(target.parent), target.name))


def remove_leftovers(state: Path) -> None:
    """Delete the folders of copies that a crash cut off."""
    for scratch in state.glob(f"{SCRATCH}*"):
        with suppress(OSError), _lock(scratch):
            discard(scratch)


@contextmanager
def _lock(scratch: str | Path) -> Iterator[None]:
    """Hold the lock of a folder in which a copy is made. Raises OSError where another process does."""
    fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not try_lock(fd):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(scratch))
        yield
    finally:
        os.close(fd)


def _copy(ledger: Path, target: Path) -> None:
    try:
        with name_damage(ledger), closing(open_reader(ledger)) as db:
            db.conn.execute("VACUUM INTO ?", [str(target)])
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger can't be copied ({error})") from error
