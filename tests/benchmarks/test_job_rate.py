"""`python -m benchmarks.pool` measures every figure, and each is positive."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agent.ledger.ledger import Ledger
from benchmarks import job_rate as bench
from benchmarks import pool
from benchmarks.pool_rate import Effort

LITTLE = Effort(dispatches=5, deaths=1, flood=20, jobs=4, spans=4, span_s=0.05, workers=(1, 2))


def test_a_row_becomes_a_running_worker(tmp_path: Path) -> None:
    """Each round is a job of its own in a ledger of its own, begun by a real worker after it was queued."""
    latencies = bench.queued_to_running(tmp_path, 3)
    assert len(latencies) == 3
    assert all(0 < latency < 60 for latency in latencies)
    ledger = Ledger(tmp_path / "state" / "jobs.db")
    rows = ledger.rows("SELECT state, attempt FROM job_status")
    ledger.close()
    assert rows == [{"state": "cancelled", "attempt": 1}] * 3


def test_the_command_prints_figures_for_people_and_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both forms name the same figures: latencies, dispatches a second, scaling by strategy and workers."""
    measured = bench.figures(LITTLE, rounds=1)
    assert {"queued_to_running_median_ms", "dispatch_median_ms", "death_noticed_median_ms"} <= set(measured)
    assert {"queue_scaling_at_2", "split_scaling_at_2", "dispatches_per_s_at_2"} <= set(measured)
    assert all(figure > 0 for figure in measured.values())
    monkeypatch.setattr(bench, "figures", lambda: measured)
    monkeypatch.setattr(sys, "argv", ["pool", "--json"])
    pool.main()
    assert json.loads(capsys.readouterr().out) == measured
    monkeypatch.setattr(sys, "argv", ["pool"])
    pool.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(measured)
