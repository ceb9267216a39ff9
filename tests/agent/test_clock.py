"""The clocks of the daemon."""

from __future__ import annotations

import time

import pytest

from agent.clock import FEW, SHARE, Clock, Pace


def test_both_clocks_go_forward() -> None:
    """Seconds are monotonic, milliseconds are those since 1970."""
    clock = Clock()
    first_s, first_ms = clock.now_s(), clock.at_ms()
    assert clock.now_s() >= first_s
    assert abs(first_ms - 1000 * time.time()) < 60_000


def test_costly_work_rests_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """What took half a second is due again when that is a hundredth of the time; what is little, at once."""
    times = iter([10.0, 10.5, 20.0, 20.5])
    monkeypatch.setattr("agent.clock.time.perf_counter", lambda: next(times))
    work = Pace()
    assert work.is_due(0.0)
    with work.measure(100.0, FEW + 1):
        assert work.is_due(100.0)
    assert not work.is_due(100.0 + 0.5 / SHARE - 1)
    assert work.is_due(100.0 + 0.5 / SHARE)
    with work.measure(200.0, FEW):
        pass
    assert work.is_due(200.0)


def test_work_that_fails_rests_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time was spent."""
    times = iter([0.0, 1.0])
    monkeypatch.setattr("agent.clock.time.perf_counter", lambda: next(times))
    work = Pace()
    with pytest.raises(OSError, match="gone"), work.measure(0.0, FEW + 1):
        raise OSError("gone")
    assert not work.is_due(1.0)
