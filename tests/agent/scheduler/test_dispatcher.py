"""Rows become spans: whose turn it is, who gives way to whom, what a lost worker costs, and what a job waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.reader import open_reader
from agent.scheduler.dispatcher import makes_room
from gpu_pool.types import Device, Exited, RunSpan
from models.catalog import EngineChoice
from tests.agent.floor import Floor, cpus, fails

GIB = 1 << 30


Build = Callable[..., Floor]


@pytest.fixture
def make_floor(tmp_path: Path) -> Iterator[Build]:
    """Floors over one folder, closed when the test is over."""
    floors: list[Floor] = []

    def make(devices: Sequence[Device], **how: Any) -> Floor:
        floors.append(Floor(tmp_path, devices, **how))
        return floors[-1]

    yield make
    for floor in floors:
        floor.close()


@pytest.fixture
def on_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job renders on a card, as with an engine that needs one."""
    monkeypatch.setattr("agent.scheduler.engines.choose_engine", lambda *_: EngineChoice("musetalk", "cuda", "a test"))


def card(name: str, free: int = 48, *, seat: str = "") -> Device:
    return Device(name + seat, "cuda", card=name, total_bytes=48 * GIB, free_bytes=free * GIB)


# turns ---------------------------------------------------------------------------------------------------------------


def test_one_job_goes_through_all_stages(make_floor: Build) -> None:
    """Each stage once, the render cut on the grid, and the row says it is done."""
    floor = make_floor(cpus(2))
    floor.add("hello")
    floor.finish(1)
    stages = [stage for _, _, _, stage in floor.placed]
    assert stages == ["inspect", "prepare", *["render"] * 4, "assemble"]
    assert (floor.row("hello")["state"], floor.row("hello")["attempt"]) == ("done", 1)


def test_a_claim_is_committed_before_a_worker_hears_of_it(make_floor: Build, tmp_path: Path) -> None:
    """When the first message of a job is sent its row says running to every reader, in a commit that several share."""
    floor = make_floor(cpus(3), frames=10)
    names = ("one", "two", "three")
    for name in names:
        floor.add(name)
    told: dict[str, set[str]] = {}

    def look(_device: str, name: str, order: RunSpan) -> None:
        if order.payload["stage"] == "inspect":
            reader = open_reader(tmp_path / "state" / "jobs.db")
            told[name] = {row["name"] for row in reader.query("SELECT name FROM jobs WHERE state = 'running'")}
            reader.close()

    floor.story = look
    floor.dispatch.dispatch(floor.clock(), floor.at())
    assert told == {name: set(names) for name in names}


def test_submitters_take_turns(make_floor: Build) -> None:
    """A flood of one submitter and two jobs of another: the two are not last."""
    floor = make_floor(cpus(1), frames=10)
    for n in range(6):
        floor.add(f"flood{n}", submitter="anna")
    floor.clock.now += 5
    for n in range(2):
        floor.add(f"guest{n}", submitter="bert")
    floor.finish(8)
    assert floor.done == ["flood0", "guest0", "flood1", "guest1", "flood2", "flood3", "flood4", "flood5"]


def test_an_urgent_job_overtakes_and_an_old_one_is_not_starved(make_floor: Build) -> None:
    """High before normal; but one that waited ten minutes for each level has its turn among the urgent ones."""
    floor = make_floor(cpus(1), frames=24, frame_s=2.5)
    floor.add("patient", priority=-2)
    floor.clock.now += 1
    for n in range(30):
        floor.add(f"urgent{n:02}")
    floor.run(lambda: "patient" in floor.done, within_s=3600)
    started = min(at for at, _, name, _ in floor.placed if name == "patient")
    assert 1200 <= started < 1300
    assert floor.done[:2] == ["urgent00", "urgent01"]


def test_a_running_job_that_is_not_urgent_still_gets_on(make_floor: Build) -> None:
    """Urgent jobs that stream in take the device at each span's end, until the slow one has waited its ten minutes."""
    floor = make_floor(cpus(1), frames=480, frame_s=0.1)
    floor.add("slow")
    floor.run(lambda: len(floor.renders("slow")) == 2)
    for n in range(40):
        floor.add(f"urgent{n:02}", priority=1)
    floor.run(lambda: len(floor.renders("slow")) == 3, within_s=3600)
    waited = floor.renders("slow")[2][0] - floor.renders("slow")[1][0]
    assert 600 <= waited < 700


def test_a_job_that_was_alone_gives_devices_back(make_floor: Build) -> None:
    """`auto` spreads one job over four devices; when three come, each has a device at the next end of a span."""
    floor = make_floor(cpus(4), frames=960, frame_s=0.1)
    floor.add("first")
    floor.run(lambda: len(floor.renders("first")) == 4)
    assert len({device for _, device in floor.renders("first")}) == 4
    for n in range(3):
        floor.add(f"later{n}")
    floor.run(lambda: all(floor.renders(f"later{n}") for n in range(3)))
    boundary = max(floor.renders(f"later{n}")[0][0] for n in range(3))
    first_span_ends = floor.renders("first")[0][0] + 6.0
    assert first_span_ends <= boundary <= first_span_ends + 0.5
    assert len([at for at, _ in floor.renders("first") if first_span_ends <= at <= boundary]) <= 1
    floor.finish(4)


def test_two_running_jobs_share_the_devices(make_floor: Build) -> None:
    """A job that is rendered on all devices leaves one to another that has none, though nothing is in the queue."""
    floor = make_floor(cpus(2), frames=960, frame_s=0.1)
    floor.add("long")
    floor.run(lambda: len(floor.renders("long")) == 2)
    floor.add("short")
    floor.run(lambda: bool(floor.renders("short")))
    ends = min(at for at, _ in floor.renders("long")) + 6.0
    assert floor.renders("short")[0][0] <= ends + 0.5


def test_a_preparation_of_many_units_is_shared_out_and_then_joined(make_floor: Build) -> None:
    """`split` is for the preparation too: spans on the grid on several devices, one more that joins, once."""
    floor = make_floor(cpus(3))
    floor.prepare_units = 60
    spans: list[tuple[int, int, float]] = []

    def story(_device: str, _name: str, order: RunSpan) -> None:
        if order.payload["stage"] == "prepare":
            spans.append((order.start, order.stop, floor.clock()))

    floor.story = story
    floor.add("hello", strategy="split")
    floor.finish(1)
    assert [(start, stop) for start, stop, _ in spans] == [(0, 20), (20, 40), (40, 60), (60, 61)]
    assert spans[0][2] == spans[2][2] < spans[3][2]


# memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_cards")
def test_what_fits_nowhere_waits_and_says_so_and_stops_nobody(make_floor: Build) -> None:
    """A job too large for the card waits with the reason in its row; smaller ones, also later ones, go on."""
    floor = make_floor([card("GPU-1", free=8), *cpus(2)])
    sizes = {"big": 40 * GIB}

    def story(_device: str, name: str, _order: RunSpan) -> None:
        floor.memory_bytes = sizes.get(name, GIB)

    floor.story = story
    for n in range(5):
        floor.add(f"big{n}")
        sizes[f"big{n}"] = 40 * GIB
    floor.run(lambda: sum(row["stage"] == "prepare" for row in floor.rows()) >= 0 and len(floor.placed) >= 2)
    for n in range(3):
        floor.add(f"small{n}")

    def told() -> bool:
        floor.dispatch.explain()
        return len(floor.done) == 3

    floor.run(told)
    assert sorted(floor.done) == ["small0", "small1", "small2"]
    for n in range(5):
        row = floor.row(f"big{n}")
        assert row["state"] == "running"
        assert "40960 MiB" in row["waiting_for"]


@pytest.mark.parametrize(
    ("need_gib", "devices", "comes"),
    [
        (40, [("a", "busy", 10, 20), ("a", "busy", 10, 15)], True),
        (40, [("a", "busy", 10, 20), ("a", "busy", 10, 5)], False),
        (40, [("a", "idle", 10, 20), ("a", "idle", 10, 15)], False),
        (40, [("a", "busy", 10, 20), ("b", "idle", 48, 0)], False),
        (30, [("a", "busy", 10, 20), ("b", "idle", 20, 0)], True),
        (40, [], False),
    ],
)
def test_whether_room_is_coming(need_gib: int, devices: list[tuple[str, Any, int, int]], *, comes: bool) -> None:
    """Only what our own busy workers hold on a card counts as memory that will get free."""
    there = [
        Device(f"{on}/{n}", "cuda", card=on, state=state, free_bytes=free * GIB, held_bytes=held * GIB)
        for n, (on, state, free, held) in enumerate(devices)
    ]
    assert makes_room(need_gib * GIB, there) is comes


@pytest.mark.usefixtures("on_cards")
def test_a_big_job_is_not_starved_by_small_ones_on_a_shared_card(make_floor: Build) -> None:
    """Two workers share a card; small spans that stream in keep half of it taken, until the big job is waited for."""
    floor = make_floor([card("GPU-1"), card("GPU-1", seat="/2"), *cpus(4)], frames=200, frame_s=0.1)
    sizes = {"big": 40 * GIB}

    def story(_device: str, name: str, _order: RunSpan) -> None:
        floor.memory_bytes = sizes.get(name, 20 * GIB)

    floor.story = story
    floor.slowness["GPU-1/2"] = 1.37  # so that the two are never free at the same time by chance
    floor.add("small0", strategy="queue")
    floor.add("small1", strategy="queue")
    floor.run(lambda: bool(floor.renders("small0") and floor.renders("small1")))
    floor.add("big", strategy="queue", priority=5)
    for n in range(2, 12):
        floor.add(f"small{n}", strategy="queue")
    floor.run(lambda: "big" in floor.done, within_s=600)
    assert floor.renders("big")[0][0] < 60
    assert len(floor.done) < 12


# faults --------------------------------------------------------------------------------------------------------------


def ends_with(floor: Floor, times: int, **how: Any) -> None:
    """The worker of the first `times` render spans dies."""
    left = [times]

    def story(device: str, _name: str, order: RunSpan) -> list[tuple[float, Any]] | None:
        if order.payload["stage"] != "render" or not left[0]:
            return None
        left[0] -= 1
        pid = next(device_.worker_pid for device_ in floor.pool.devices() if device_.id == device)
        return [(0.1, Exited(pid or 0, **how))]

    floor.story = story


@pytest.mark.parametrize("how", [{"signal": "SIGSEGV"}, {"signal": "SIGABRT"}, {"signal": "SIGBUS"}, {"code": 3}])
def test_a_job_that_crashes_its_worker_twice_is_poison(make_floor: Build, how: dict[str, Any]) -> None:
    """The third worker doesn't get it; the row and the events say what the two died of."""
    floor = make_floor(cpus(2))
    ends_with(floor, 99, log="last words", **how)
    floor.add("bad", strategy="queue")
    floor.run(lambda: floor.row("bad")["state"] == "failed")
    row = floor.row("bad")
    assert (row["error_code"], row["interruptions"], row["attempt"]) == ("poison", 2, 1)
    assert len(floor.renders("bad")) == 2
    events = floor.ledger.rows("SELECT kind, device, detail FROM job_events WHERE kind = 'worker_died'")
    assert len(events) == 2
    assert all(event["device"] and "last words" in event["detail"] for event in events)
    word = how.get("signal") or "exit code 3"
    assert word in row["error_message"]
    [attempt] = floor.ledger.rows("SELECT * FROM job_attempts")
    assert (attempt["interruptions"], attempt["outcome"]) == (2, "failed")
    assert word in attempt["cause"]
    assert "last words" in attempt["cause"]


@pytest.mark.parametrize(
    "how", [{"signal": "SIGKILL"}, {"signal": "SIGTERM"}, {"signal": "SIGKILL", "out_of_memory": 1}]
)
def test_a_worker_that_was_killed_costs_a_span_and_no_attempt(make_floor: Build, how: dict[str, Any]) -> None:
    """Killed by somebody, or once by the kernel for want of memory: the span is done again, on the same attempt."""
    floor = make_floor(cpus(2))
    ends_with(floor, 1, **how)
    floor.add("hurt", strategy="queue")
    floor.finish(1)
    row = floor.row("hurt")
    assert (row["state"], row["attempt"], row["interruptions"]) == ("done", 1, 1)
    [attempt] = floor.ledger.rows("SELECT outcome, interruptions, cause FROM job_attempts")
    assert (attempt["outcome"], attempt["interruptions"]) == ("done", 1)
    assert how["signal"] in attempt["cause"]


def test_killed_workers_have_a_cap_of_their_own(make_floor: Build) -> None:
    """Not poison, however often: after max_interruptions the job fails as interrupted, and may be retried."""
    floor = make_floor(cpus(1))
    ends_with(floor, 99, signal="SIGKILL")
    floor.add("unlucky")
    floor.run(lambda: floor.row("unlucky")["state"] == "failed")
    row = floor.row("unlucky")
    cap = floor.settings.pool.max_interruptions
    assert (row["error_code"], row["interruptions"], row["attempt"]) == ("interrupted", cap + 1, 1)


def test_a_host_out_of_memory_twice_is_poison(make_floor: Build) -> None:
    """A job for which this machine is too small takes two workers with it, and no more."""
    floor = make_floor(cpus(2))
    ends_with(floor, 99, signal="SIGKILL", out_of_memory=True)
    floor.add("huge")
    floor.run(lambda: floor.row("huge")["state"] == "failed")
    assert (floor.row("huge")["error_code"], floor.row("huge")["interruptions"]) == ("poison", 2)


def test_a_card_out_of_memory_is_no_poison(make_floor: Build) -> None:
    """A worker that says so itself is not the job's fault: it may try until its interruptions are used up."""
    floor = make_floor(cpus(2))
    left = [3]

    def story(_device: str, _name: str, order: RunSpan) -> list[tuple[float, Any]] | None:
        if order.payload["stage"] == "render" and left[0]:
            left[0] -= 1
            return [(0.1, fails(order, "out_of_memory", fault="worker", retry=True))]
        return None

    floor.story = story
    floor.add("large")
    floor.finish(1)
    assert (floor.row("large")["state"], floor.row("large")["interruptions"]) == ("done", 3)


# devices -------------------------------------------------------------------------------------------------------------


def test_a_drained_device_gets_no_more_until_it_is_resumed(make_floor: Build) -> None:
    """Its span ends, its worker too; the others go on; afterwards it works again."""
    floor = make_floor(cpus(2), frames=240, frame_s=0.1)
    floor.add("first", strategy="split")
    floor.run(lambda: len(floor.renders("first")) >= 2)
    drained_at = floor.clock()
    assert floor.devices.drain("cpu-1", floor.at())
    floor.finish(1)
    assert {device for at, device, _, _ in floor.placed if at > drained_at} == {"cpu:0"}
    [row] = floor.ledger.rows("SELECT state, reason FROM device_status WHERE device = 'cpu:1'")
    assert row == {"state": "drained", "reason": "set aside by a person"}
    assert floor.devices.resume("CPU:1", floor.at())
    floor.add("second", strategy="split")
    floor.finish(2)
    assert "cpu:1" in {device for _, device in floor.renders("second")}
    assert not floor.devices.drain("cpu:7", floor.at())


def test_draining_survives_a_restart(make_floor: Build) -> None:
    """A card that was taken out for the night is out when the daemon starts again."""
    floor = make_floor(cpus(2))
    floor.devices.drain("cpu:0", floor.at())
    floor.close()
    again = make_floor(cpus(2))
    again.run(lambda: again.pool.devices()[0].state == "drained", within_s=10)
    again.add("hello", strategy="split")
    again.finish(1)
    assert {device for _, device, _, _ in again.placed} == {"cpu:1"}


@pytest.mark.usefixtures("on_cards")
def test_draining_a_card_drains_all_its_workers(make_floor: Build) -> None:
    """A card is named by its UUID, a worker of it by its own id."""
    floor = make_floor([card("GPU-1"), card("GPU-1", seat="/2"), card("GPU-2"), *cpus(1)])
    floor.devices.drain("gpu-1", floor.at())
    states = {device.id: device.state for device in floor.pool.devices()}
    floor.run(lambda: [d.state for d in floor.pool.devices()][:3] == ["drained", "drained", "idle"], within_s=20)
    floor.devices.resume("GPU-1-2", floor.at())
    floor.run(lambda: [d.state for d in floor.pool.devices()][:3] == ["drained", "idle", "idle"], within_s=20)
    assert set(states) == {"GPU-1", "GPU-1/2", "GPU-2", "cpu:0"}


def test_a_queue_without_devices_says_what_it_waits_for(make_floor: Build) -> None:
    """With every worker set aside, each queued job says so, and no longer when one is back."""
    floor = make_floor(cpus(1))
    floor.devices.drain("cpu:0", floor.at())
    floor.run(lambda: floor.pool.devices()[0].state == "drained", within_s=10)
    floor.add("hello")
    floor.dispatch.explain()
    assert "cpu:0 is drained" in floor.row("hello")["waiting_for"]
    [row] = floor.ledger.rows("SELECT waiting_for FROM queue")
    assert row["waiting_for"] == floor.row("hello")["waiting_for"]
    floor.devices.resume("cpu:0", floor.at())
    floor.settle()
    floor.dispatch.explain()
    assert floor.row("hello")["waiting_for"] is None
    floor.finish(1)


def test_a_sick_device_says_since_when_and_until_when(make_floor: Build) -> None:
    """After faults in a row the row of the device has the reason and the time of the next try, and it is tried then."""
    floor = make_floor(cpus(2))
    floor.backend.opening = lambda _, pid: (0.01, Exited(pid, code=1, log="no such card"))
    for name in ("cpu:0", "cpu:1"):
        floor.backend.die(name)
    floor.run(lambda: all(d.state == "sick" for d in floor.pool.devices()), within_s=100)
    rows = floor.ledger.rows("SELECT state, reason, since, until FROM device_status")
    assert [row["state"] for row in rows] == ["sick", "sick"]
    assert all("no such card" in row["reason"] and row["since"] < row["until"] for row in rows)


def test_spans_of_a_task_that_nobody_knows_are_nobodys(make_floor: Build) -> None:
    """What a cancelled run's worker still says changes nothing."""
    floor = make_floor(cpus(1), frames=240)
    job = floor.add("gone")
    floor.run(lambda: bool(floor.renders("gone")))
    floor.dispatch.close_cancelled(job, floor.at())
    floor.run(lambda: floor.pool.devices()[0].state == "idle", within_s=60)
    assert floor.row("gone")["state"] == "cancelled"
    assert floor.dispatch.runs == {}
