"""Devices that are drained and resumed, and what the ledger says of them."""

from __future__ import annotations

import pytest

from gpu_pool.types import Done, Exited, RunSpan
from tests.agent.simulation import Build, a_card, cpus
from tests.gpu_pool.fake import Message


def test_a_drained_device_gets_no_more_until_it_is_resumed(make_simulation: Build) -> None:
    """Its span ends, its worker too; the others go on; afterwards it works again."""
    simulation = make_simulation(cpus(2), frames=240, frame_s=0.1)
    simulation.add("first", strategy="split")
    simulation.run(lambda: len(simulation.renders("first")) >= 2)
    drained_at = simulation.clock()
    assert simulation.devices.drain("cpu-1")
    simulation.finish(1)
    assert {device for at, device, _, _ in simulation.placed if at > drained_at} == {"cpu:0"}
    [row] = simulation.ledger.rows("SELECT state, reason FROM device_status WHERE device = 'cpu:1'")
    assert row == {"state": "drained", "reason": "set aside by a person"}
    assert simulation.devices.resume("CPU:1")
    simulation.add("second", strategy="split")
    simulation.finish(2)
    assert "cpu:1" in {device for _, device in simulation.renders("second")}
    assert not simulation.devices.drain("cpu:7")


def test_draining_survives_a_restart(make_simulation: Build) -> None:
    """A card that was taken out for the night is out when the daemon starts again."""
    simulation = make_simulation(cpus(2))
    simulation.devices.drain("cpu:0")
    simulation.close()
    again = make_simulation(cpus(2))
    again.run(lambda: again.pool.devices()[0].state == "drained", within_s=10)
    again.add("hello", strategy="split")
    again.finish(1)
    assert {device for _, device, _, _ in again.placed} == {"cpu:1"}


@pytest.mark.usefixtures("on_cards")
def test_draining_a_card_drains_all_its_workers(make_simulation: Build) -> None:
    """A card is named by its UUID, a worker of it by its own id."""
    simulation = make_simulation([a_card("GPU-1"), a_card("GPU-1", worker="/2"), a_card("GPU-2"), *cpus(1)])
    simulation.devices.drain("gpu-1")
    states = {device.id: device.state for device in simulation.pool.devices()}
    simulation.run(
        lambda: [d.state for d in simulation.pool.devices()][:3] == ["drained", "drained", "idle"], within_s=20
    )
    simulation.devices.resume("GPU-1-2")
    simulation.run(lambda: [d.state for d in simulation.pool.devices()][:3] == ["drained", "idle", "idle"], within_s=20)
    assert set(states) == {"GPU-1", "GPU-1/2", "GPU-2", "cpu:0"}


def test_a_sick_device_says_since_when_and_until_when(make_simulation: Build) -> None:
    """After faults in a row the row of the device has the reason and the time of the next try, and it is tried then."""
    simulation = make_simulation(cpus(2))
    simulation.backend.opening = lambda _, pid: (0.01, Exited(pid, code=1, log="no such card"))
    for name in ("cpu:0", "cpu:1"):
        simulation.backend.die(name)
    simulation.run(lambda: all(d.state == "sick" for d in simulation.pool.devices()), within_s=100)
    rows = simulation.ledger.rows("SELECT state, reason, since, until FROM device_status")
    assert [row["state"] for row in rows] == ["sick", "sick"]
    assert all("no such card" in row["reason"] and row["since"] < row["until"] for row in rows)


@pytest.mark.usefixtures("on_cards")
def test_loading_again_is_counted_in_the_time_left(make_simulation: Build) -> None:
    """After a job the card gives its memory back, and the next one knows how long loading and its frames will take."""
    simulation = make_simulation([a_card("GPU-1"), *cpus(1)], frames=100, frame_s=0.1)

    def load(_device: str, name: str, order: RunSpan) -> list[tuple[float, Message]] | None:
        if order.payload["stage"] != "prepare":
            return None
        stats = {"model": "musetalk", "load_s": 20.0}
        took_s = 20.1 if name != "third" else 0.1
        return [(took_s, Done(order.task, order.start, order.stop, took_s, {}, stats=stats))]

    simulation.story = load
    simulation.add("first")
    simulation.finish(1)
    assert simulation.devices.unload("gpu-1")
    assert not simulation.devices.unload("cpu:0"), "it has no model"
    simulation.run(lambda: simulation.pool.devices()[0].state == "idle", within_s=20)
    assert simulation.backend.unloaded == ["GPU-1"]
    simulation.add("second")
    simulation.run(lambda: "prepare" in {stage for *_, name, stage in simulation.placed if name == "second"})
    [attempt] = simulation.dispatcher.attempts.values()
    assert attempt.eta_s(attempt.stage_started_s) == pytest.approx(30.0, abs=0.5)
    simulation.finish(2)
    simulation.add("third")
    simulation.run(lambda: "prepare" in {stage for *_, name, stage in simulation.placed if name == "third"})
    [attempt] = simulation.dispatcher.attempts.values()
    assert attempt.eta_s(attempt.stage_started_s) == pytest.approx(10.0, abs=0.5)
