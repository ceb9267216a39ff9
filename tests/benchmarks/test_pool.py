"""`python -m benchmarks.pool` measures every figure, and each is positive."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agent.ledger.ledger import Ledger
from benchmarks import pool
from benchmarks.pool import Effort

EFFORT = Effort(jobs=1, dispatches=5, deaths=2, flood=20, queue_spans=4, split_spans=4, span_s=0.05, workers=(1, 2))


def test_each_timed_job_is_queued_and_runs(tmp_path: Path) -> None:
    """Each is a job of its own in a new ledger, begun by a real worker after it was queued."""
    latencies_s = pool.time_queued_to_running(tmp_path, 3)
    assert len(latencies_s) == 3
    assert all(0 < latency_s < 60 for latency_s in latencies_s)
    ledger = Ledger(tmp_path / "state" / "jobs.db")
    rows = ledger.rows("SELECT state, attempt FROM job_status")
    ledger.close()
    assert rows == [{"state": "cancelled", "attempt": 1}] * 3


def test_the_command_prints_every_figure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured with real workers; the text and the JSON form have the same figures.

    Sleeping spans never run faster than there are workers.
    """
    measured = pool.measure(EFFORT)
    assert list(measured) == [
        "queued_to_running_median_ms",
        "queued_to_running_p99_ms",
        "start_of_1_s",
        "start_of_2_s",
        "dispatch_median_ms",
        "dispatch_p99_ms",
        "death_noticed_median_ms",
        "death_noticed_p99_ms",
        "dispatches_per_s_at_1",
        "dispatches_per_s_at_2",
        "queue_scaling_at_1",
        "queue_scaling_at_2",
        "split_scaling_at_1",
        "split_scaling_at_2",
    ]
    assert all(figure > 0 for figure in measured.values())
    for strategy in ("queue", "split"):
        for count in EFFORT.workers:
            assert measured[f"{strategy}_scaling_at_{count}"] <= count
    monkeypatch.setattr(pool, "measure", lambda _: measured)
    monkeypatch.setattr(sys, "argv", ["pool", "--json"])
    pool.main()
    assert json.loads(capsys.readouterr().out) == measured
    monkeypatch.setattr(sys, "argv", ["pool"])
    pool.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(measured)
