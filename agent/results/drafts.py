"""Drafts show which face would speak: their files and rows are deleted soon after their end."""

from __future__ import annotations

import logging
from pathlib import Path

from agent.clock import Clock
from agent.fs import discard
from agent.ledger.ledger import Ledger
from agent.results import outbox
from agent.settings import Folders

log = logging.getLogger("musedrop")

KEEP_S = 900.0
"""How long a draft is kept after its end."""
EVERY_S = 30.0


class Drafts:
    def __init__(self, folders: Folders, ledger: Ledger, clock: Clock) -> None:
        self._folders, self._ledger, self._clock = folders, ledger, clock
        self._next_s = 0.0

    def step(self) -> None:
        """Delete what is due, if it is time to look; what can't be deleted is tried again."""
        now_s = self._clock.now_s()
        if now_s < self._next_s:
            return
        self._next_s = now_s + EVERY_S
        for uid in self._ledger.retention.list_ended_drafts(self._clock.at_ms() - round(1000 * KEEP_S)):
            try:
                self._delete(uid)
            except OSError as error:
                log.warning("a draft can't be deleted: %s: %s", error.strerror, error.filename)

    def _delete(self, uid: str) -> None:
        job = self._ledger.job(uid)
        if job is None:
            return
        if job.result:
            outbox.remove_result(self._folders.outbox, job.result, uid)
        inputs = Path(job.inputs or "")
        if inputs.is_relative_to(self._folders.failed) or inputs.is_relative_to(self._folders.archive):
            discard(inputs)
        self._ledger.retention.delete_draft(job.id, uid)
