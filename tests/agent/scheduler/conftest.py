"""What the tests of the scheduler share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gpu_pool.types import Device
from models.catalog import EngineChoice
from tests.agent.simulation import Build, Simulation


@pytest.fixture
def make_simulation(tmp_path: Path) -> Iterator[Build]:
    """Simulations over one folder, closed when the test is over."""
    simulations: list[Simulation] = []

    def make(devices: Sequence[Device], **how: Any) -> Simulation:
        simulations.append(Simulation(tmp_path, devices, **how))
        return simulations[-1]

    yield make
    for simulation in simulations:
        simulation.close()


@pytest.fixture
def on_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job renders on a card, as with an engine that needs one."""
    monkeypatch.setattr("agent.scheduler.engines.choose_engine", lambda *_: EngineChoice("musetalk", "cuda", "a test"))
