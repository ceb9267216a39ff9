"""Work whose cost grows with the number of entries, done so rarely that it takes a small share of the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 0.01
"""The share of one core."""
FEW = 64
"""Work on so many entries may be done at any time, however slow the machine is just then."""


class Pace:
    """One kind of work; `now_s` is monotonic seconds of the daemon's clock."""

    def __init__(self) -> None:
        self._due_s = 0.0

    def is_due(self, now_s: float) -> bool:
        return now_s >= self._due_s

    @contextmanager
    def measure(self, now_s: float, entries: int) -> Iterator[None]:
        """Do the work on so many entries in this block, and let it rest in proportion."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._due_s = now_s + (time.perf_counter() - began_s) / SHARE if entries > FEW else 0.0
