"""What the last day was like, hour by hour: work for each second of video, and how busy each device was."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.ledger.reader import Rows

HOUR_MS = 3_600_000
HOURS = 24
ENDED = (
    "SELECT started_ms, finished_ms, duration_s, json_extract(facts, '$.devices') AS devices FROM jobs"
    " WHERE state = 'done' AND strftime('%Y-%m-%dT%H:%M:%fZ', finished_ms / 1000.0, 'unixepoch') >= ?"
    " AND submitter <> 'draft' ORDER BY strftime('%Y-%m-%dT%H:%M:%fZ', finished_ms / 1000.0, 'unixepoch') DESC LIMIT ?"
)
"""By the index of state and finished_at."""
MANY = 5000
KEEP_S = 20.0

Span = tuple[int, int]


class DayFigures:
    """Reads the jobs of the last day, at most every `KEEP_S`."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s, self._due_s = now_s, 0.0
        self._known: dict[str, Any] = {}

    def read(self, db: Rows, now: datetime) -> dict[str, Any]:
        """Return "factor", seconds of work for a second of video in each of 24 hours, and "use", the busy part of each
        hour by device. None where nothing was made.
        """
        if not self._known or self._now_s() >= self._due_s:
            day_ago = (now.astimezone(UTC) - timedelta(hours=HOURS)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            self._known = measure_day(db.query(ENDED, [day_ago, MANY]), int(now.timestamp() * 1000))
            self._due_s = self._now_s() + KEEP_S
        return self._known


def measure_day(rows: Iterable[dict[str, Any]], at_ms: int) -> dict[str, Any]:
    """Return what `DayFigures.read` does of jobs that are done.

    `rows`: started_ms, finished_ms, duration_s and devices, as JSON.
    """
    first_ms = (at_ms // HOUR_MS - HOURS + 1) * HOUR_MS
    work_ms, video_s = [0] * HOURS, [0.0] * HOURS
    spans: defaultdict[str, list[Span]] = defaultdict(list)
    for row in rows:
        start_ms, end_ms = row["started_ms"] or row["finished_ms"], row["finished_ms"]
        hour = (end_ms - first_ms) // HOUR_MS
        if 0 <= hour < HOURS:
            work_ms[hour] += end_ms - start_ms
            video_s[hour] += row["duration_s"] or 0.0
        for device in json.loads(row["devices"] or "[]"):
            spans[str(device)].append((start_ms, end_ms))
    factor = [round(ms / 1000 / s, 2) if s else None for ms, s in zip(work_ms, video_s, strict=True)]
    return {"factor": factor, "use": {device: measure_use(spans[device], first_ms) for device in sorted(spans)}}


def measure_use(spans: Iterable[Span], first_ms: int) -> list[float]:
    """Return the part of each hour, from `first_ms` on, that at least one of the spans covers."""
    covered, end_ms = [0] * HOURS, first_ms
    for start_ms, stop_ms in sorted(spans):
        at_ms = max(start_ms, end_ms)
        end_ms = max(end_ms, stop_ms)
        while at_ms < stop_ms:
            hour = (at_ms - first_ms) // HOUR_MS
            edge_ms = min(stop_ms, first_ms + (hour + 1) * HOUR_MS)
            if hour < HOURS:
                covered[hour] += edge_ms - at_ms
            at_ms = edge_ms
    return [round(ms / HOUR_MS, 3) for ms in covered]
