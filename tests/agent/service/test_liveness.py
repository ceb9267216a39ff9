"""When the daemon is well enough to feed the watchdog."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.service.liveness import LoopStatus, liveness_error

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
