"""Which ends are told: each at least once, none from before the first start, in a file that survives restarts."""

from __future__ import annotations

from pathlib import Path

from agent.hooks.queue import LONGEST_PAUSE_S, Delivery, HookQueue
from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from tests.agent.samples import a_ledger, add_job

HOOKS = {"done": ("done",), "url": ("done", "failed")}


def read(queue: HookQueue, ledger: Ledger) -> list[tuple[str, str]]:
    queue.read_ends(ledger.db, HOOKS)
    return [(one.hook, one.uid) for one in queue.pending]


def test_each_end_is_told_once_from_the_first_start_on(tmp_path: Path) -> None:
    """Old ends are not told; two in one millisecond are told each; a restart goes on where it was."""
    ledger, queue = a_ledger(tmp_path), HookQueue(tmp_path / "hooks.json")
    add_job(ledger, "old", state=JobState.DONE, at_ms=1000)
    assert read(queue, ledger) == []
    add_job(ledger, "u1", state=JobState.DONE, at_ms=2000)
    add_job(ledger, "u2", state=JobState.FAILED, at_ms=2000)
    add_job(ledger, "u3", state=JobState.CANCELLED, at_ms=2001)
    told = [("done", "u1"), ("url", "u1"), ("url", "u2")]
    assert sorted(read(queue, ledger)) == told
    assert sorted(read(queue, ledger)) == told
    again = HookQueue(tmp_path / "hooks.json")
    assert sorted((one.hook, one.uid) for one in again.pending) == told
    add_job(ledger, "u4", state=JobState.FAILED, at_ms=2000)
    assert ("url", "u4") in read(again, ledger)
    ledger.close()


def test_what_failed_is_due_later_and_ever_later(tmp_path: Path) -> None:
    """2 s, 4 s ... and never more than five minutes; what was told is gone, also from the file."""
    queue = HookQueue(tmp_path / "hooks.json")
    queue.pending = [Delivery("done", "u1", "2026"), Delivery("url", "u1", "2026")]
    [first, second] = list(queue.list_due(0.0))
    queue.finish(first)
    queue.postpone(second, 100.0)
    assert list(queue.list_due(101.0)) == []
    [again] = list(queue.list_due(102.0))
    assert again.attempts == 1
    pauses = [Delivery("url", "u1", "2026", attempts=n).retry(0.0).due_s for n in range(12)]
    assert pauses[:3] == [2.0, 4.0, 8.0]
    assert max(pauses) == LONGEST_PAUSE_S
    assert len(HookQueue(tmp_path / "hooks.json").pending) == 1


def test_a_damaged_file_is_a_first_start(tmp_path: Path) -> None:
    """Nothing is told twice for it, and nothing fails."""
    (tmp_path / "hooks.json").write_text('{"since": 5}')
    ledger, queue = a_ledger(tmp_path), HookQueue(tmp_path / "hooks.json")
    add_job(ledger, "u1", state=JobState.DONE, at_ms=1000)
    assert read(queue, ledger) == []
    ledger.close()
