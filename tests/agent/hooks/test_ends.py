"""Which ends of jobs are read: each once, however many there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.hooks import ends
from agent.hooks.ends import EndReader
from agent.jobs.states import JobState
from tests.agent.samples import a_ledger, add_job


def test_many_ends_of_one_millisecond_are_all_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are read at once: they come together, and the later ones follow."""
    monkeypatch.setattr(ends, "MANY", 2)
    ledger, reader = a_ledger(tmp_path), EndReader()
    assert reader.read_new(ledger.db) == []
    for number, at_ms in enumerate((1000, 1000, 1000, 2000, 3000)):
        add_job(ledger, f"u{number}", state=JobState.DONE, at_ms=at_ms)
    read = [[row["uid"] for row in reader.read_new(ledger.db)] for _ in range(5)]
    assert sorted(read[0]) == ["u0", "u1", "u2"]
    assert read[1:] == [["u3", "u4"], [], [], []]
    ledger.close()


def test_only_the_asked_states_count(tmp_path: Path) -> None:
    """Another end is not read, and hides none that ended before it; ends from before the first call are old."""
    ledger, reader = a_ledger(tmp_path), EndReader(states=("done",))
    add_job(ledger, "old", state=JobState.DONE, at_ms=1000)
    add_job(ledger, "cancelled", state=JobState.CANCELLED, at_ms=1001)
    assert reader.read_new(ledger.db) == []
    add_job(ledger, "u1", state=JobState.DONE, at_ms=2000)
    add_job(ledger, "u2", state=JobState.FAILED, at_ms=2001)
    assert [row["uid"] for row in reader.read_new(ledger.db)] == ["u1"]
    assert reader.read_new(ledger.db) == []
    ledger.close()
