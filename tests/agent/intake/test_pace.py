"""How often costly work may be done."""

from __future__ import annotations

import pytest

from agent.intake.pace import FEW, SHARE, Pace


def test_costly_work_rests_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """What took half a second is due again when that is a hundredth of the time; what is little, at once."""
    times = iter([10.0, 10.5, 20.0, 20.5])
    monkeypatch.setattr("agent.intake.pace.time.perf_counter", lambda: next(times))
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
    monkeypatch.setattr("agent.intake.pace.time.perf_counter", lambda: next(times))
    work = Pace()
    with pytest.raises(OSError, match="gone"), work.measure(0.0, FEW + 1):
        raise OSError("gone")
    assert not work.is_due(1.0)
