"""When the daemon is well enough to feed the watchdog."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.service.liveness import Signs, illness

WELL = Signs(looked_at=100.0, period_s=5.0, observed=True, committed_at=100.0, idle=False)


@pytest.mark.parametrize(
    ("signs", "now", "says"),
    [
        (WELL, 104.0, ""),
        (WELL, 110.0, ""),
        (WELL, 110.1, "last looked at 10 s ago"),
        (replace(WELL, observed=False), 104.0, ""),
        (replace(WELL, observed=False), 106.0, "nobody watches"),
        (replace(WELL, looked_at=115.0), 115.5, "last commit 16 s ago"),
        (replace(WELL, looked_at=115.0, idle=True), 115.5, ""),
        (replace(WELL, looked_at=float("-inf")), 100.0, "last looked at inf s ago"),
    ],
)
def test_what_counts_as_ill(signs: Signs, now: float, says: str) -> None:
    """Two periods without a look, an observer that no look has mended, jobs without a commit."""
    found = illness(signs, now)
    assert says in found
    assert bool(found) == bool(says)
