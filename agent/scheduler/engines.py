"""The engine of a job, remembered for a moment: choosing one looks for a dozen files and packages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agent.clock import Clock
from models.catalog import ENGINES, EngineChoice, choose_engine, has_cuda_torch
from models.types import DeviceKind, EngineError

KEEP_S = 2.0


class EngineChooser:
    def __init__(self, models_dir: Path, clock: Clock) -> None:
        self._models_dir, self._clock = models_dir, clock
        self._choices: dict[tuple[str, frozenset[DeviceKind], str], tuple[float, EngineChoice]] = {}

    def list_on_cards(self) -> list[str]:
        """Return what jobs ask for, "auto" included, that would run on a card if one could be used."""
        return [asked for asked in ("auto", *ENGINES) if self._prefers_card(asked)]

    def _prefers_card(self, asked: str) -> bool:
        try:
            return choose_engine(asked, self._models_dir, ("cpu", "cuda")).kind == "cuda"
        except EngineError:
            return False

    def choose(self, asked: str, kinds: Iterable[DeviceKind], version: object = None) -> EngineChoice:
        """Return the choice of `choose_engine`, at most `KEEP_S` old. Raises EngineError, each time anew."""
        key, now_s = (asked, frozenset(kinds), repr(version)), self._clock.now_s()
        kept = self._choices.get(key)
        if kept is None or now_s - kept[0] >= KEEP_S:
            kept = self._choices[key] = now_s, choose_engine(asked, self._models_dir, key[1], version, has_cuda_torch())
        return kept[1]
