"""Opening the ledger file: read-write for the daemon, read-only for all others."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from agent.errors import UserError
from agent.fs import follow_links, make_safe_name
from agent.fs.layout import Folders
from agent.ledger.places import Places

APPLICATION_ID = 0x6D757365
""""muse": lets `file` and other tools recognise the database."""
Unreadable = sqlite3.Error
"""What a query may raise beside LedgerError: the file is busy, gone or another one."""
NOT_UTF8 = "Could not decode"
"""How Python begins its complaint about a text whose bytes are damaged."""


class LedgerError(UserError):
    """The ledger can't be used; the message says why and what to do."""


class NoLedger(LedgerError):
    """There is no ledger, or the daemon is just laying it out."""


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Raises LedgerError where the file can't be opened: rights, or a folder of its name or of one beside it."""
    mode, real = "ro" if read_only else "rwc", follow_links(path)
    if path.exists() and not path.is_file():  # SQLite would take a pipe for a full disk
        raise LedgerError(f"the ledger {path} can't be opened: it must be a file, and this is none")
    for beside in (real.with_name(f"{real.name}{end}") for end in ("-wal", "-shm", "-journal")):
        if os.path.lexists(beside) and (beside.is_symlink() or not beside.is_file()):
            raise LedgerError(
                f"the ledger {path} can't be opened: {beside.name} beside it must be a file, and this is none;"
                " with the daemon stopped, put the file back, or move away what has its name"
            )
    try:
        return sqlite3.connect(f"{real.as_uri()}?mode={mode}", uri=True, timeout=5.0)
    except sqlite3.OperationalError as error:
        if not read_only and error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN:
            raise
        needed = "read it" if read_only else "read and write it, and its folder"
        raise LedgerError(f"the ledger {path} can't be opened ({error}): it must be a file, and this user must be "
                          f"able to {needed}") from error  # fmt: skip


def make_damage_error(path: Path, reason: str) -> LedgerError:
    """Return the error that says what is damaged and what to do."""
    return LedgerError(
        f"the ledger {path} is damaged ({reason}): with the daemon stopped, restore it from a backup, or move it away"
        " with its -wal; claimed jobs are recovered from the share then, and results in the outbox are known again"
    )


@contextmanager
def name_damage(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite that mean a damaged file into LedgerError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) and not str(error).startswith(NOT_UTF8):
            raise
        raise make_damage_error(path, str(error).partition("\n")[0]) from error


class Rows(Protocol):
    """What reads rows: a `Reader`, or the daemon's own database."""

    def query(self, sql: str, params: Any = None, /) -> Iterable[dict[str, Any]]: ...
    def execute(self, sql: str, parameters: Any = None, /) -> sqlite3.Cursor: ...


class Reader:
    """A read-only connection, whose queries say in words that the file is damaged."""

    def __init__(self, conn: sqlite3.Connection, path: Path) -> None:
        self.conn, self.path = conn, path

    def query(self, sql: str, params: Any = None) -> Iterator[dict[str, Any]]:
        """Yield the rows as dictionaries."""
        with name_damage(self.path):
            rows = self.execute(sql, params)
            names = [column[0] for column in rows.description]
            for row in rows:
                yield dict(zip(names, row, strict=True))

    def execute(self, sql: str, parameters: Any = None) -> sqlite3.Cursor:
        return self.conn.execute(sql, parameters if parameters is not None else ())

    def close(self) -> None:
        self.conn.close()


def open_reader(path: Path) -> Reader:
    """A read-only view of the ledger, also for a user who may not write to its folder.

    SQLite needs write access to build the shared-memory index of a ledger that no daemon has open; then nobody
    changes the file either, and it is read as immutable. Raises LedgerError for a file that is no ledger.
    """
    if not path.exists():
        raise NoLedger(f"there is no ledger at {path}: has the daemon run with these settings?")
    conn = connect(path, read_only=True)
    with name_damage(path):
        try:
            conn.execute("SELECT 1 FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError:
            conn.close()
            conn = sqlite3.connect(f"{follow_links(path).as_uri()}?immutable=1", uri=True)
        if conn.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            if conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                raise NoLedger(f"{path} is not a ledger of musedrop yet, but empty: has the daemon run?")
            raise LedgerError(f"{path} is not a ledger of musedrop: has the daemon run with these settings?")
    return Reader(conn, path)


def find_inputs(db: Rows, uid: str, places: Places) -> Path | None:
    """Return the folder in which the inputs of a job are; None while they are not in their last place."""
    found = [row["inputs"] for row in db.query("SELECT inputs FROM jobs WHERE uid = ?", [uid])]
    return Path(places.expand(found[0])) if found and found[0] else None


def find_failed_folder(db: Rows, folders: Folders, row: Mapping[str, Any]) -> Path:
    """Return the folder of a failed job, a row of job_status; it may be called NAME-2 where failed/NAME was taken."""
    places = Places(folders.share, folders.state)
    return find_inputs(db, str(row["uid"]), places) or folders.failed / make_safe_name(str(row["name"]))


def read_spec(db: Rows, uid: str) -> dict[str, Any]:
    """Return what a job asks for, as a job file says it; empty where there is no such job."""
    rows = list(db.query("SELECT spec FROM jobs WHERE uid = ?", [uid]))
    return json.loads(rows[0]["spec"] or "{}") if rows else {}


def read_facts(db: Rows, uid: str) -> dict[str, Any]:
    """Return what the row of a job says of its result; empty where there is none."""
    rows = list(db.query("SELECT facts FROM jobs WHERE uid = ?", [uid]))
    return json.loads(rows[0]["facts"] or "{}") if rows else {}


def list_media(db: Rows, uid: str, places: Places) -> dict[str, list[Path]]:
    """Return where the media of a job may be, by their roles: where they were, and among its filed inputs."""
    found: dict[str, list[Path]] = {}
    for row in db.query("SELECT media, inputs FROM jobs WHERE uid = ?", [uid]):
        inputs = places.expand(str(row["inputs"])) if row["inputs"] else ""
        for role, medium in json.loads(row["media"] or "{}").items():
            path = Path(places.expand(str(medium["path"])))
            names = dict.fromkeys(
                (Path(str(medium["given"]).replace("\\", "/")).name, path.name)
            )  # the second is spoken
            found[role] = [*(Path(inputs) / name for name in names if inputs), path]
    return found
