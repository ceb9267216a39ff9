"""Whether the daemon is well enough to say so: systemd's watchdog is fed only while it is."""

from __future__ import annotations

from dataclasses import dataclass

COMMIT_S = 5.0
"""Seconds between two commits that prove, while jobs run, that the ledger takes them."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What the main loop knows of itself; times are monotonic seconds.

    looked_at     when it last looked at the inbox, or found the share away
    period_s      how often it wants to look
    observed      whether new files are told of, or known not to be (polled, or refused by the kernel)
    committed_at  when the ledger last took a commit
    idle          whether there is nothing to commit
    """

    looked_at: float
    period_s: float
    observed: bool
    committed_at: float
    idle: bool


def illness(signs: Signs, now: float) -> str:
    """Why the daemon isn't well, "" if it is.

    An observer that has ended is mended by the next look, so it counts only together with a look that is overdue.
    """
    unseen_s, patience_s = now - signs.looked_at, 2 * signs.period_s
    if unseen_s > patience_s:
        return f"the inbox was last looked at {unseen_s:.0f} s ago"
    if not signs.observed and unseen_s > signs.period_s:
        return "nobody watches the inbox"
    if not signs.idle and now - signs.committed_at > 2 * COMMIT_S:
        return f"the ledger took its last commit {now - signs.committed_at:.0f} s ago"
    return ""
