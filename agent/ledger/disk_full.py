"""A full disk below the state folder, told from other errors of SQLite and of the file system."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from agent.fs import is_disk_full


class DiskFull(Exception):
    """The state folder's disk is full: the write that failed left nothing, earlier writes are on disk."""


@contextmanager
def raise_disk_full() -> Iterator[None]:
    """Turn the errors of SQLite and of the file system that mean a full disk into DiskFull."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise DiskFull(str(error)) from error
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise DiskFull(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)) from error
