"""status.db on the share: a copy of the ledger, made beside the daemon's work whenever something has changed."""

from __future__ import annotations

from math import inf
from threading import Thread

from agent.ledger.ledger import Ledger
from agent.ledger.reader import LedgerError
from agent.ledger.snapshot import snapshot
from agent.service.problems import Troubles
from agent.settings import Settings

LAST_COPY_S = 10.0


class Snapshots:
    """A thread of its own copies, through a connection of its own: a slow share keeps no job waiting."""

    def __init__(self, settings: Settings, ledger: Ledger, troubles: Troubles) -> None:
        self.settings = settings
        self.source, self.target = settings.folders.ledger, settings.folders.snapshot
        self.ledger, self.troubles = ledger, troubles
        self._copied: int | None = None
        self._begun = -inf
        self._thread: Thread | None = None
        self._problem = ""

    def keep_up(self, now: float) -> None:
        """Begin a copy if one is due and anything has changed since the last; a copy that runs is left to run."""
        every_s = self.settings.status.snapshot_s
        if not every_s or self._running():
            return
        self.troubles.tell("snapshot", self._problem)
        changes = self.ledger.changes
        if now < self._begun + every_s or (changes == self._copied and not self._problem):
            return
        self._copied, self._begun = changes, now
        self._thread = Thread(target=self._copy, name="snapshot", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Before the ledger is closed: one more copy if anything has changed; a share that hangs is not waited for."""
        self._await()
        self.keep_up(inf)
        self._await()

    def _await(self) -> None:
        if self._thread is not None:
            self._thread.join(LAST_COPY_S)

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _copy(self) -> None:
        try:
            snapshot(self.source, self.target)
        except (LedgerError, OSError) as error:
            self._problem = f"status.db can't be written: {error}"
        else:
            self._problem = ""
