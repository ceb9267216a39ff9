"""Durations by a calendar that people and time servers set, across restarts of the daemon and of the machine."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.ledger.ledger import Ledger
from agent.service.clock_history import KEPT, ClockHistory
from tests.agent.fake_clock import FakeClock
from tests.agent.samples import a_ledger

DAY_S = 86_400.0


class Desk:
    """A history over a ledger; `restart` makes it anew, as another process."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.clock = ledger, FakeClock()
        self.restart()

    def restart(self, *, reboot: bool = False) -> None:
        if reboot:
            self.clock.boot += "'"
            self.clock.uptime_ms = -round(1000 * self.clock.now)
        self.history = ClockHistory(self.ledger, self.clock)
        self.history.take_jump()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(a_ledger(tmp_path))


@pytest.mark.parametrize("jump_s", [0.0, 1.0, 40 * DAY_S, -DAY_S, -10.0, 5.0])
@pytest.mark.parametrize("restarted", ["", "before", "after", "meanwhile"])
def test_a_set_clock_changes_no_duration(desk: Desk, jump_s: float, restarted: str) -> None:
    """Set while the daemon runs, or while none does."""
    at_ms = desk.clock.at_ms()
    desk.clock.now += 30
    if restarted == "before":
        desk.restart()
    desk.clock.set_calendar(jump_s)
    if restarted != "meanwhile":
        assert desk.history.take_jump() == (round(1000 * jump_s) if abs(jump_s) > 2 else 0)
        assert desk.history.take_jump() == 0
    if restarted in ("after", "meanwhile"):
        desk.restart()
    desk.clock.now += 30
    assert desk.history.elapsed_s(at_ms) == pytest.approx(60, abs=2)


def test_after_another_boot_durations_begin_anew(desk: Desk) -> None:
    """How long the machine was off can't be known; a wait is at most as long as it is asked to be."""
    at_ms = desk.clock.at_ms()
    desk.clock.now += 30
    desk.clock.set_calendar(40 * DAY_S)
    desk.restart(reboot=True)
    assert desk.history.elapsed_s(at_ms) == 0
    desk.clock.now += 30
    assert desk.history.elapsed_s(at_ms) == 30


def test_a_machine_without_a_name_of_its_boot(desk: Desk) -> None:
    """Each start counts as one of the machine."""
    at_ms = desk.clock.at_ms()
    desk.clock.now += 30
    desk.clock.boot = ""
    desk.restart()
    assert desk.history.elapsed_s(at_ms) == 0


def test_a_slow_correction_is_followed(desk: Desk) -> None:
    """No jump is larger than what counts as one, and the history does not grow without end."""
    for _ in range(3 * KEPT):
        desk.clock.set_calendar(2.0)
        desk.clock.now += 60
        assert abs(desk.history.take_jump()) <= 2000
    at_ms = desk.clock.at_ms()
    desk.clock.now += 60
    assert desk.history.elapsed_s(at_ms) == pytest.approx(60, abs=2)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-50 * DAY_S, 50 * DAY_S), st.floats(0, 1000), st.booleans()), max_size=8))
def test_no_duration_is_longer_than_the_uptime(events: list[tuple[float, float, bool]]) -> None:
    """Whatever is done to the clock, a duration is between none and all the time since it began."""
    with TemporaryDirectory() as folder, closing(Ledger(Path(folder, "jobs.db"))) as ledger:
        desk = Desk(ledger)
        at_ms, began_s = desk.clock.at_ms(), desk.clock.now
        for jump_s, passed_s, restarted in events:
            desk.clock.set_calendar(jump_s)
            if restarted:
                desk.restart()
            desk.history.take_jump()
            desk.clock.now += passed_s
            assert 0 <= desk.history.elapsed_s(at_ms) <= desk.clock.now - began_s + 1000 + 2
