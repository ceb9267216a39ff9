"""When the daemon is well enough to feed the watchdog."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.service.liveness import HEARTBEAT_S, KEY, Heartbeat, LoopStatus, liveness_error
from tests.agent.fake_clock import FakeClock
from tests.agent.samples import a_ledger

WELL = LoopStatus(scanned_s=100.0, period_s=5.0, watched=True, committed_s=100.0, idle=False)


@pytest.mark.parametrize(
    ("status", "now_s", "says"),
    [
        (WELL, 104.0, ""),
        (WELL, 110.0, ""),
        (WELL, 110.1, "last scanned 10 s ago"),
        (replace(WELL, watched=False), 104.0, ""),
        (replace(WELL, watched=False), 106.0, "watcher of the inbox has ended"),
        (replace(WELL, scanned_s=115.0), 115.5, "last commit 16 s ago"),
        (replace(WELL, scanned_s=115.0, idle=True), 115.5, ""),
        (replace(WELL, scanned_s=float("-inf")), 100.0, "last scanned inf s ago"),
    ],
)
def test_what_counts_as_ill(status: LoopStatus, now_s: float, says: str) -> None:
    """Two periods without a scan, a watcher that no scan has restarted, jobs without a commit."""
    found = liveness_error(status, now_s)
    assert says in found
    assert bool(found) == bool(says)


def test_a_heartbeat_is_committed_while_jobs_run(tmp_path: Path) -> None:
    """Every few seconds, and never for an idle daemon."""
    ledger, clock = a_ledger(tmp_path), FakeClock()
    heartbeat = Heartbeat(ledger, clock)
    clock.now = 100.0
    heartbeat.write(busy=False)
    assert ledger.recall(KEY) is None
    heartbeat.write(busy=True)
    first = ledger.recall(KEY)
    clock.now += HEARTBEAT_S - 1
    heartbeat.write(busy=True)
    assert ledger.recall(KEY) == first == str(clock.start_ms + 100_000)
    clock.now += 1
    heartbeat.write(busy=True)
    assert ledger.recall(KEY) != first
    assert heartbeat.committed_s == clock.now
