"""Work and use in the hours of a day."""

from __future__ import annotations

import json
from typing import Any

from agent.page.figures import HOUR_MS, measure_day, measure_use

NOW_MS = 1000 * HOUR_MS + 5


def a_row(start_h: float, stop_h: float, duration_s: float | None, *devices: str) -> dict[str, Any]:
    start_ms, end_ms = (round(NOW_MS - 5 + hours * HOUR_MS) for hours in (start_h, stop_h))
    return {
        "started_ms": start_ms,
        "finished_ms": end_ms,
        "duration_s": duration_s,
        "devices": json.dumps(devices) if devices else None,
    }


def test_work_for_a_second_of_video_is_that_of_the_hour_of_the_end() -> None:
    """Hours without videos have no factor, and older jobs none at all."""
    figures = measure_day([a_row(-1.5, -0.5, 900.0, "cpu:0"), a_row(-40, -39, 10.0), a_row(-3, -2.5, None)], NOW_MS)
    assert figures["factor"] == [None] * 22 + [4.0, None]
    assert figures["use"] == {"cpu:0": [0.0] * 21 + [0.5, 0.5, 0.0]}


def test_time_that_several_jobs_share_counts_once() -> None:
    """A device is busy at most all of an hour, and what is before the day doesn't count."""
    spans = [(-HOUR_MS, HOUR_MS // 2), (0, HOUR_MS // 4), (HOUR_MS // 2, HOUR_MS * 2), (30 * HOUR_MS, 31 * HOUR_MS)]
    assert measure_use(spans, 0) == [1.0, 1.0] + [0.0] * 22
