"""What the status says, over a dispatcher whose workers are fake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.results.status import DaemonState, StatusReport
from agent.service.problems import Problems
from agent.service.systemd import Notifier
from tests.agent.simulation import Simulation, cpus


class Desk(Simulation):
    """A simulation with a report of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, cpus(2))
        self.problems = Problems()
        self.report = StatusReport(self.settings.folders, self.ledger, self.dispatcher, self.problems, Notifier())

    def write(self, state: DaemonState | None = None, *, on_share: bool = True) -> None:
        self.report.write(state or DaemonState(), on_share=on_share)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def test_a_file_that_somebody_took_away_or_replaced_is_written_again(desk: Desk) -> None:
    """Also while nothing changes; a link is not followed."""
    file = desk.settings.folders.status_file
    desk.write()
    written = json.loads(file.read_bytes())
    desk.clock.now += 1
    desk.write()
    assert json.loads(file.read_bytes()) == written, "nothing has changed"
    other = file.with_name("other")
    for spoiled in ("removed", "a link", "another file"):
        if spoiled == "another file":
            file.write_bytes(b"{}")
        else:
            file.unlink()
        if spoiled == "a link":
            file.symlink_to(other)
        desk.write()
        assert json.loads(file.read_bytes()).keys() == written.keys()
        assert not file.is_symlink()
    assert not other.exists()


def test_a_running_job_says_when_it_will_be_rendered(desk: Desk) -> None:
    """The row of job_status, and the seconds left at the pace so far."""
    desk.add("hello")
    desk.run(lambda: len(desk.renders("hello")) == 4)
    desk.clock.now += 1
    status = desk.report.collect(DaemonState())
    [row] = status["running"]
    assert row["name"] == "hello"
    assert row["eta_s"] > 0
    assert (status["counts"]["running"], status["queue"], status["recent"]) == (1, [], [])


def test_the_engine_of_auto_waits_for_a_driver_in_trouble(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says why, and is the usual one without trouble."""
    assert "run on preview" in desk.report.describe_engine()
    monkeypatch.setattr(desk.dispatcher, "find_held", lambda: (["auto"], "reboot"))
    assert desk.report.describe_engine() == "jobs with engine auto wait: reboot"


def test_the_line_names_what_is_not_in_order(desk: Desk) -> None:
    """Counts, devices out of service, what the daemon does, then the problems."""
    desk.devices.drain("cpu:0")
    desk.run(lambda: desk.pool.devices()[0].state == "drained", within_s=10)
    desk.problems.set("outbox", "the outbox can't be written")
    desk.problems.set_notice("a restart is needed for share")
    line = desk.report.make_line(DaemonState(draining=True, paused=True), desk.ledger.counts())
    assert line == (
        "0 running, 0 queued, 0 waiting, cpu:0 drained, paused, draining,"
        " the outbox can't be written, a restart is needed for share"
    )


def test_only_what_has_changed_is_written(desk: Desk) -> None:
    """The same status again leaves the file alone; a share that is away gets it when it is back."""
    file = desk.settings.folders.status_file
    desk.write(on_share=False)
    assert not file.exists()
    desk.write()
    before = file.stat().st_ino
    desk.write()
    assert file.stat().st_ino == before
    desk.write(DaemonState(draining=True))
    assert json.loads(file.read_bytes())["daemon"]["draining"] is True
    assert file.stat().st_ino != before
