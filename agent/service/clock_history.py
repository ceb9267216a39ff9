"""How the calendar was set while the machine ran: durations across restarts, whatever was done to the clock."""

from __future__ import annotations

import json

from agent.clock import Clock
from agent.ledger.ledger import Ledger

KEY = "clock_history"
JUMP_MS = 2_000
"""How much the calendar must deviate to count as set; a slow correction is followed in such steps."""
KEPT = 64


class ClockHistory:
    """The offsets of the calendar from the time since boot, each with when it began.

    They are kept in the ledger for later starts, and count for one start of the machine.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock
        self._boot_id, self._started_ms = clock.boot_id(), clock.boot_ms()
        self._offsets = self._read()
        self.is_known = bool(self._offsets)
        """Whether the times in the ledger can be compared: they are of this start of the machine."""
        if not self._offsets:
            self._add(self._started_ms, self._offset_ms())

    def take_jump(self) -> int:
        """Return by how many milliseconds the calendar was set since the last call, 0 if it was not."""
        offset_ms = self._offset_ms()
        jump_ms = offset_ms - self._offsets[-1][1]
        if abs(jump_ms) < JUMP_MS:
            return 0
        self._add(self._clock.boot_ms(), offset_ms)
        return jump_ms

    def elapsed_s(self, at_ms: int) -> float:
        """Return the seconds since a time that the calendar showed.

        Where they can't be known they count from the start of this process, so that no wait is cut short.
        """
        now_ms = self._clock.boot_ms()
        until_ms = now_ms
        for began_ms, offset_ms in reversed(self._offsets):
            boot_ms = at_ms - offset_ms
            if began_ms - JUMP_MS <= boot_ms <= until_ms + JUMP_MS:
                return max(0, now_ms - boot_ms) / 1000
            until_ms = began_ms
        return max(0, now_ms - self._started_ms) / 1000

    def latest_ms(self, age_s: float) -> int:
        """Return the latest time of the calendar that may be so long ago."""
        boot_ms = self._clock.boot_ms() - round(1000 * age_s)
        return boot_ms + JUMP_MS + max(offset_ms for _, offset_ms in self._offsets)

    def _offset_ms(self) -> int:
        return self._clock.at_ms() - self._clock.boot_ms()

    def _add(self, began_ms: int, offset_ms: int) -> None:
        self._offsets = [*self._offsets, (began_ms, offset_ms)][-KEPT:]
        self._ledger.remember(KEY, json.dumps({"boot": self._boot_id, "offsets": self._offsets}))

    def _read(self) -> list[tuple[int, int]]:
        known = self._ledger.recall_object(KEY)
        if not self._boot_id or known.get("boot") != self._boot_id:
            return []
        return [(began_ms, offset_ms) for began_ms, offset_ms in known["offsets"]]
