"""Do all stages of a short job in one exchange with its worker: asking for each takes longer than the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from models.types import STAGES, EngineError, ProgressCallback, is_short

RunStage = Callable[[dict[str, Any], int, int, ProgressCallback], dict[str, Any]]
"""Runs units [start, stop) of the stage that a message names, and returns what it found."""


def run_short_job(run: RunStage, payload: Mapping[str, Any], progress: ProgressCallback) -> dict[str, Any]:
    """Inspect the media; where that shows a short job, do the other stages as well.

    Return the result of the inspection, and then "facts", the result of `assemble`, with "stage_seconds" of the stages
    that followed. A later stage that fails is not told of here: without "facts" it is run again by itself.
    """

    def tick(_units: int) -> None:
        progress(0)  # the span has one unit, which is the inspection

    inspected = run({**payload, "stage": "inspect", "goes_on": False}, 0, 1, tick)
    outline, seconds, facts = inspected["outline"], dict[str, float](), dict[str, Any]()
    if not is_short(outline):
        return inspected
    message = {**payload, "goes_on": False, "outline": outline, "spans": [[0, outline["frames"]]]}
    for stage in (stage for stage in STAGES[1:] if stage in outline["units"]):
        began_s = time.monotonic()
        try:
            facts = run({**message, "stage": stage}, 0, outline["units"][stage], tick)
        except EngineError:
            return inspected
        seconds[stage] = round(time.monotonic() - began_s, 3)
    return {**inspected, "facts": facts, "stage_seconds": seconds}
