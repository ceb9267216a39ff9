"""The clocks of the daemon."""

from __future__ import annotations

import time

from agent.clock import Clock


def test_both_clocks_go_forward() -> None:
    """Seconds are monotonic, milliseconds are those since 1970."""
    clock = Clock()
    first_s, first_ms = clock.now_s(), clock.at_ms()
    assert clock.now_s() >= first_s
    assert abs(first_ms - 1000 * time.time()) < 60_000
