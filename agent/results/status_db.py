"""status.db on the share: a copy of the ledger, made by a thread when something has changed."""

from __future__ import annotations

from math import inf
from threading import Thread

from agent.clock import Clock
from agent.ledger.ledger import Ledger
from agent.ledger.reader import LedgerError
from agent.ledger.snapshot import copy_ledger
from agent.service.problems import Problems
from agent.settings import CurrentSettings

LAST_COPY_S = 10.0


class StatusDatabase:
    """Copies by a thread and a connection of its own, so that a slow share keeps no job waiting."""

    def __init__(self, settings: CurrentSettings, ledger: Ledger, problems: Problems, clock: Clock) -> None:
        self.settings, self.ledger, self.problems, self.clock = settings, ledger, problems, clock
        folders = settings.current.folders
        self.source, self.target = folders.ledger, folders.snapshot
        self._copied_changes: int | None = None
        self._started_s = -inf
        self._thread: Thread | None = None
        self._problem = ""

    def update(self) -> None:
        """Start a copy if one is due and something has changed since the last; a copy that runs goes on."""
        every_s = self.settings.current.status.snapshot_s
        if every_s and not self._is_copying():
            self._start(every_s)

    def finish(self) -> None:
        """Make a last copy before the ledger is closed; a share that hangs is waited for `LAST_COPY_S`."""
        self._join()
        if self.settings.current.status.snapshot_s and not self._is_copying():
            self._start(0.0)
        self._join()

    def _start(self, every_s: float) -> None:
        self.problems.set("snapshot", self._problem)
        changes, now_s = self.ledger.changes, self.clock.now_s()
        if now_s < self._started_s + every_s or (changes == self._copied_changes and not self._problem):
            return
        self._copied_changes, self._started_s = changes, now_s
        thread = Thread(target=self._copy, name="snapshot", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._problem = f"status.db can't be written: {error}"
            return
        self._thread = thread

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join(LAST_COPY_S)

    def _is_copying(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _copy(self) -> None:
        try:
            copy_ledger(self.source, self.target)
        except (LedgerError, OSError) as error:
            self._problem = f"status.db can't be written: {error}"
        else:
            self._problem = ""
