"""Old rows, and the files that the other rows still need."""

from __future__ import annotations

from pathlib import Path

from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from tests.agent.samples import a_ledger, add_job


def add_ended(ledger: Ledger, uid: str, *, at_ms: int, archived: bool = True) -> None:
    add_job(ledger, uid, state=JobState.DONE, at_ms=at_ms)
    ledger.update(uid, tidied=int(archived), swept=int(archived), inputs=f"/archive/{uid}")


def test_the_oldest_go_first_and_only_a_few_at_a_time(tmp_path: Path) -> None:
    """Rows that ended before the time, whose files have followed, with what belongs to them."""
    ledger = a_ledger(tmp_path)
    for number in range(4):
        add_ended(ledger, f"u{number}", at_ms=1000 + number, archived=number != 1)
    assert ledger.retention.delete_old(1003, 1) == 1
    assert ledger.retention.delete_old(1003, 5) == 1
    assert ledger.retention.delete_old(1003, 5) == 0
    assert [row["uid"] for row in ledger.rows("SELECT uid FROM jobs ORDER BY id")] == ["u1", "u3"]
    assert ledger.rows("SELECT count(*) AS n FROM attempts") == [{"n": 2}]


def test_unfinished_jobs_need_their_files(tmp_path: Path) -> None:
    """A folder is needed if a path of theirs is that folder or is below it; a folder of a similar name is not."""
    ledger = a_ledger(tmp_path)
    add_ended(ledger, "gone", at_ms=1000)
    add_ended(ledger, "open", at_ms=1000, archived=False)
    add_job(ledger, "live", media={"audio": {"path": "/share/failed/old/voice.wav"}})
    needed = ledger.retention.find_needed()
    assert needed.uids == {"open", "live"}
    below = ["/archive/open", "/archive/gone", "/share/failed/old", "/share/failed/ol", "/share/failed/old-2"]
    assert [needed.has_below(path) for path in below] == [True, False, True, False, False]
