"""Whether the calendar may decide what is old: not for a day after it has jumped forward."""

from __future__ import annotations

import json
from typing import Any

from agent.clock import Clock
from agent.ledger.ledger import Ledger

KEY = "retention_clock"
DAY_MS = 86_400_000
TOLERANCE_MS = 600_000


class ClockTrust:
    """Compares the calendar with the time since boot from one round of retention to the next."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock

    def check(self) -> str:
        """Return why nothing may be deleted by age now, "" if it may. To be called once a round."""
        last: dict[str, Any] = self._ledger.recall_object(KEY)
        boot_id, boot_ms, at_ms = self._clock.boot_id(), self._clock.boot_ms(), self._clock.at_ms()
        is_same_boot = bool(boot_id) and last.get("boot_id") == boot_id
        real_ms = max(0, boot_ms - last["boot_ms"]) if is_same_boot else 0
        most_ms = (real_ms if is_same_boot else DAY_MS) + TOLERANCE_MS
        held_ms, jump_ms = last.get("held_ms"), last.get("jump_ms", 0)
        if last and at_ms - last["at_ms"] > most_ms:
            held_ms, jump_ms = 0, at_ms - last["at_ms"] - real_ms
        elif held_ms is not None:
            held_ms += real_ms
        if held_ms is not None and held_ms >= DAY_MS:
            held_ms = None
        self._save(boot_id=boot_id, boot_ms=boot_ms, at_ms=at_ms, held_ms=held_ms, jump_ms=jump_ms)
        return "" if held_ms is None else _describe(jump_ms, held_ms)

    def accept(self) -> None:
        """Take the calendar as right from now on: a person says so."""
        clock = self._clock
        self._save(boot_id=clock.boot_id(), boot_ms=clock.boot_ms(), at_ms=clock.at_ms(), held_ms=None, jump_ms=0)

    def _save(self, **values: Any) -> None:
        self._ledger.remember(KEY, json.dumps(values))


def _describe(jump_ms: int, held_ms: int) -> str:
    hours = max(1, round((DAY_MS - held_ms) / 3_600_000))
    return (
        f"the clock is {jump_ms / DAY_MS:.1f} days later than at the last deletion of old files, and may be wrong: "
        f"nothing is deleted for {hours} hours, or until `musedrop trust-clock`"
    )
