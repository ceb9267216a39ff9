"""The state that every share must have when all jobs are finished, whatever was killed."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

from tests.share import Share, alive

TERMINAL = {"done", "failed", "cancelled"}


def check(share: Share, names: Sequence[str], workers: Sequence[int] = ()) -> None:
    """Assert that each job has one finished row and, if done, one result, and no file is left.

    Of a daemon that has stopped; `workers` are processes that must be gone.
    """
    rows = share.rows()
    assert Counter(row["name"] for row in rows) == Counter(names)
    assert {row["state"] for row in rows} <= TERMINAL, rows
    done = {row["result"]: row["uid"] for row in rows if row["state"] == "done"}
    assert {path.name for path in share.outbox.iterdir()} == set(done)
    for result, uid in done.items():
        assert share.result(result)["uid"] == uid
        assert {path.name for path in (share.outbox / result).iterdir()} == {"result.mp4", "result.json", "preview.jpg"}
    assert len(list(share.failed.iterdir())) == len(rows) - len(done)
    assert not list((share.state / "work").iterdir())
    assert not list((share.folder / ".musedrop" / "claimed").iterdir())
    assert not list((share.folder / ".musedrop" / "staging").iterdir())
    assert not list(share.inbox.iterdir())
    assert not any(map(alive, workers))
    with sqlite3.connect(share.state / "jobs.db") as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        unended = conn.execute("SELECT count(*) FROM attempts WHERE ended_ms IS NULL").fetchone()
    conn.close()
    assert unended == (0,)
