"""Which engine a job runs on, remembered for a moment: to find out, a dozen files and packages are looked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from models.catalog import EngineChoice, choose_engine
from models.types import DeviceKind

LOOKED_S = 2.0


class Engines:
    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._choices: dict[tuple[str, frozenset[DeviceKind]], tuple[float, EngineChoice]] = {}

    def choose(self, asked: str, kinds: Iterable[DeviceKind], now: float) -> EngineChoice:
        """As `catalog.choose_engine`, at most `LOOKED_S` old. Raises EngineError engine_unavailable, each time anew."""
        key = asked, frozenset(kinds)
        kept = self._choices.get(key)
        if kept is None or now - kept[0] >= LOOKED_S:
            kept = self._choices[key] = now, choose_engine(asked, self._models_dir, key[1])
        return kept[1]
