"""Whether the share is there. A mount that vanished leaves an empty folder, and an empty folder is no news of jobs."""

from __future__ import annotations

import secrets

from agent.fs import atomic_write, is_folder
from agent.ledger.ledger import Ledger
from agent.settings import Settings

KEY = "share_id"


class Anchor:
    """A mark on the share that the ledger knows: without it, the share is somewhere else."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.path = settings.folders.share_id_file
        self.share = settings.share
        self.ledger = ledger

    def problem(self) -> str:
        """What is wrong, "" if the share is the one we know. The first share a ledger sees becomes that one."""
        if not is_folder(self.share):
            return f"the share {self.share} does not exist: create it or mount it, or lay it out with `musedrop init`"
        known, found = self.ledger.recall(KEY), self._read()
        if known and found != known:
            how = f"or, if this folder is to be the share from now on, write {known} into {self.path}"
            return f"the share {self.share} is not the one that this state folder knows: mount it, {how}"
        if not known:
            try:
                self._drop(found)
            except OSError as error:
                return f"the share {self.share} can't be written: {error.strerror}"
        return ""

    def _drop(self, found: str) -> None:
        mark = found or secrets.token_hex(8)
        if not found:
            self.path.parent.mkdir(exist_ok=True)
            atomic_write(self.path, f"{mark}\n".encode())
        self.ledger.remember(KEY, mark)

    def _read(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").strip()[:64]
        except OSError:
            return ""
