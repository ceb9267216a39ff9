"""A full disk, told from other errors."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from agent.ledger.disk_full import DiskFull, raise_disk_full


def test_a_database_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    """SQLite says so itself, and the cause is kept."""
    conn = sqlite3.connect(tmp_path / "small.db")
    conn.execute("CREATE TABLE t (x)")
    conn.execute("PRAGMA max_page_count = 2")
    with pytest.raises(DiskFull, match="full") as caught, raise_disk_full():
        conn.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    conn.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_file_system_without_room_is_a_full_disk(code: int) -> None:
    """Also where only a quota is used up; the file is named."""
    with pytest.raises(DiskFull, match="a file"), raise_disk_full():
        raise OSError(code, os.strerror(code), "a file")


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "denied"), sqlite3.OperationalError("no such table"), KeyError()]
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    """Nothing else is taken for a full disk."""
    if isinstance(error, sqlite3.OperationalError):
        error.sqlite_errorcode = sqlite3.SQLITE_ERROR
    with pytest.raises(type(error)) as caught, raise_disk_full():
        raise error
    assert caught.value is error
