"""What engine a job gets, remembered for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.scheduler.engines import LOOKED_S, Engines
from models.catalog import EngineChoice


def test_files_are_looked_for_once_in_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same question is answered from memory until the answer is too old; another one is not."""
    looks: list[str] = []

    def choose(asked: str, *_: object) -> EngineChoice:
        looks.append(asked)
        return EngineChoice("preview", "cpu", f"look {len(looks)}")

    monkeypatch.setattr("agent.scheduler.engines.choose_engine", choose)
    engines = Engines(tmp_path)
    asked = [("auto", 0.0), ("auto", LOOKED_S / 2), ("preview", LOOKED_S / 2), ("auto", LOOKED_S)]
    reasons = [engines.choose(engine, ["cpu"], now).reason for engine, now in asked]
    assert reasons == ["look 1", "look 1", "look 2", "look 3"]
