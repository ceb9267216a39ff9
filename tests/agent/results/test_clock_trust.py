"""When the calendar may decide what is old."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.results.clock_trust import ClockTrust
from tests.agent.fake_clock import FakeClock
from tests.agent.samples import a_ledger

HOUR_S, DAY_S = 3600.0, 86_400.0


class Desk:
    """Rounds of retention, an hour apart."""

    def __init__(self, folder: Path) -> None:
        self.ledger, self.clock = a_ledger(folder), FakeClock()
        self.trust = ClockTrust(self.ledger, self.clock)

    def round(self, after_s: float = HOUR_S) -> str:
        self.clock.now += after_s
        return self.trust.check()

    def reboot(self) -> None:
        self.clock.boot += "'"
        self.clock.uptime_ms = -round(1000 * self.clock.now)
        self.trust = ClockTrust(self.ledger, self.clock)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    assert made.round() == ""
    return made


def test_a_clock_that_goes_is_trusted(desk: Desk) -> None:
    """However long a daemon was not running."""
    assert [desk.round(), desk.round(100 * DAY_S), desk.round()] == ["", "", ""]


def test_a_jump_forward_holds_for_a_day_of_real_time(desk: Desk) -> None:
    """Restarts don't shorten it."""
    desk.clock.set_calendar(40 * DAY_S)
    assert "40.0 days later" in desk.round()
    for hour in range(1, 24):
        desk.trust = ClockTrust(desk.ledger, desk.clock)
        assert f"for {24 - hour} hours" in desk.round()
    assert desk.round() == ""


def test_a_second_jump_begins_a_new_day(desk: Desk) -> None:
    """The clock is right only when it has gone undisturbed for a day."""
    desk.clock.set_calendar(DAY_S)
    assert desk.round()
    desk.round(23 * HOUR_S)
    desk.clock.set_calendar(DAY_S)
    assert "for 24 hours" in desk.round()


def test_a_jump_back_deletes_nothing_early(desk: Desk) -> None:
    """It needs no hold; the way forward again does, since files have got the time between."""
    desk.clock.set_calendar(-DAY_S)
    assert desk.round() == ""
    desk.clock.set_calendar(DAY_S)
    assert desk.round()


@pytest.mark.parametrize(("away_s", "held"), [(HOUR_S, False), (20 * HOUR_S, False), (3 * DAY_S, True)])
def test_after_another_boot_a_day_may_have_passed(desk: Desk, away_s: float, held: bool) -> None:
    """A longer time can't be told from a clock that is wrong."""
    desk.clock.set_calendar(away_s)
    desk.reboot()
    assert bool(desk.round(0.0)) is held


def test_a_person_ends_the_hold(desk: Desk) -> None:
    """From then on the calendar counts as it is."""
    desk.clock.set_calendar(40 * DAY_S)
    assert desk.round()
    desk.trust.accept()
    assert [desk.round(), desk.round()] == ["", ""]
