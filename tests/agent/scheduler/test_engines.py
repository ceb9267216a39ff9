"""What engine a job gets, remembered for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.scheduler.engines import KEEP_S, EngineChooser
from models.catalog import EngineChoice
from tests.agent.fake_clock import FakeClock


def test_files_are_looked_for_once_in_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same question is answered from memory until the answer is too old; another one is not."""
    looks: list[str] = []

    def choose(asked: str, *_: object) -> EngineChoice:
        looks.append(asked)
        return EngineChoice("preview", "cpu", f"look {len(looks)}")

    monkeypatch.setattr("agent.scheduler.engines.choose_engine", choose)
    clock = FakeClock()
    engines = EngineChooser(tmp_path, clock)
    asked = [("auto", 0.0), ("auto", KEEP_S / 2), ("preview", KEEP_S / 2), ("auto", KEEP_S)]
    reasons = []
    for engine, clock.now in asked:
        reasons.append(engines.choose(engine, ["cpu"]).reason)
    assert reasons == ["look 1", "look 1", "look 2", "look 3"]
