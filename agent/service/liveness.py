"""Whether the daemon's loop works: systemd's watchdog is fed only while it does."""

from __future__ import annotations

from dataclasses import dataclass

from agent.clock import Clock
from agent.ledger.ledger import Ledger

KEY = "beat_ms"
HEARTBEAT_S = 5.0
"""Seconds between two commits that prove, while jobs run, that the ledger can be written."""


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """What the main loop knows of itself; times are monotonic seconds.

    scanned_s    when it last scanned the inbox, or found the share away
    period_s     how often it is to scan
    watched      whether new files cause an event, or are known to cause none (polled, or refused by the kernel)
    committed_s  when the ledger last took a commit
    idle         whether there is nothing to commit
    """

    scanned_s: float
    period_s: float
    watched: bool
    committed_s: float
    idle: bool


def liveness_error(status: LoopStatus, now_s: float) -> str:
    """Return why the loop does not work, "" if it does.

    The next scan restarts a watcher that has ended, so that counts only while a scan is overdue.
    """
    since_scan_s, since_commit_s = now_s - status.scanned_s, now_s - status.committed_s
    if since_scan_s > 2 * status.period_s:
        return f"the inbox was last scanned {since_scan_s:.0f} s ago"
    if not status.watched and since_scan_s > status.period_s:
        return "the watcher of the inbox has ended"
    if not status.idle and since_commit_s > 2 * HEARTBEAT_S:
        return f"the ledger took its last commit {since_commit_s:.0f} s ago"
    return ""


class Heartbeat:
    """Commits something now and then while jobs run, even without progress, to find out whether the ledger hangs."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock
        self.committed_s = 0.0

    def write(self, *, busy: bool) -> None:
        now_s = self._clock.now_s()
        if busy and now_s >= self.committed_s + HEARTBEAT_S:
            self._ledger.remember(KEY, str(self._clock.at_ms()))
            self.committed_s = now_s
