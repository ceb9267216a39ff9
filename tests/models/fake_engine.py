"""An engine that does nothing, has weights, and prepares in several units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.types import EngineError, Inspection, ProgressCallback, Request

UNITS = 60


class FakeEngine:
    """`said`: what was asked of all of them, in order. Weights are a file `weights` in the models' folder."""

    said: list[str] = []  # noqa: RUF012 - one list for all, cleared by the tests

    def __init__(self, device: str) -> None:
        self.device = device
        self.said.append(f"made on {device}")

    def load(self, models_dir: str) -> dict[str, Any]:
        if not (Path(models_dir) / "weights").exists():
            raise EngineError("engine_unavailable", "there are no weights", "download them")
        if (Path(models_dir) / "weights").read_text() == "large":
            raise RuntimeError("CUDA out of memory")
        self.said.append("loaded")
        return {"held_bytes": 7, "batch": 8}

    def inspect(self, request: Request, inspection: Inspection) -> Inspection:  # noqa: ARG002 - of the protocol
        return replace(inspection, units={"prepare": UNITS})

    def prepare(self, request: Request, _: Inspection, start: int, stop: int, progress: ProgressCallback) -> None:
        self.said.append(f"prepare {start}-{stop}")
        request.files.prepared_part_path(start, stop).mkdir(parents=True)
        progress(stop - start)

    def complete(self, request: Request, inspection: Inspection, progress: ProgressCallback) -> None:  # noqa: ARG002
        self.said.append("complete")
        parts = request.files.prepared_part_path(0, 1).parent
        assert sum(int(part.name[8:]) - int(part.name[:7]) for part in parts.iterdir()) == UNITS
        request.files.prepared.mkdir()
        progress(1)

    def render(self, request: Request, inspection: Inspection, start: int, stop: int) -> Iterator[Any]:  # noqa: ARG002
        yield from ()

    def report(self, request: Request, inspection: Inspection) -> dict[str, Any]:  # noqa: ARG002
        return {}
