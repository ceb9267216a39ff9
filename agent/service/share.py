"""Whether the share is there. A mount that is gone leaves an empty folder, which must not be taken for the share."""

from __future__ import annotations

import secrets
from pathlib import Path

from agent.fs import atomic_write_bytes, is_folder, read_limited
from agent.fs.folders import make_folder
from agent.ledger.ledger import Ledger

KEY = "share_id"


class ShareIdentity:
    """An id in a file of the share that the ledger knows, too: without it, the folder is not the share."""

    def __init__(self, share: Path, id_file: Path, ledger: Ledger) -> None:
        self.share, self.id_file, self.ledger = share, id_file, ledger

    def check(self) -> str:
        """Return what is wrong, "" if the share is the known one. The first share of a ledger becomes that one."""
        if not is_folder(self.share):
            return f"the share {self.share} does not exist: create it or mount it, or lay it out with `musedrop init`"
        known, found = self.ledger.recall(KEY), self._read()
        if known and found != known:
            how = f"or, if this folder is to be the share from now on, write {known} into {self.id_file}"
            return f"the share {self.share} is not the one that this state folder knows: mount it, {how}"
        if not known:
            try:
                self._adopt(found)
            except OSError as error:
                return f"the share {self.share} can't be written: {error.strerror}"
        return ""

    def _adopt(self, found: str) -> None:
        """Remember the id of the share, or give it a new one."""
        share_id = found or secrets.token_hex(8)
        if not found:
            make_folder(self.id_file.parent, 0o700)
            atomic_write_bytes(self.id_file, f"{share_id}\n".encode())
        self.ledger.remember(KEY, share_id)

    def _read(self) -> str:
        return (read_limited(self.id_file, 64) or b"").decode("utf-8", "replace").strip()[:64]
