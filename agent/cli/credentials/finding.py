"""What `musedrop verify` says of one thing that it looked at, and where the inputs of a result are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.credentials.boxes import hash_file
from agent.fs import read_regular

if TYPE_CHECKING:
    from agent.ledger.reader import Rows
    from agent.settings import Settings

MOST_RECORD_BYTES = 1 << 20

Media = Mapping[str, Sequence[Path]]
"""Where the inputs of a job may be, by their roles in the ledger."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: whether it holds, None where that can't be told, and what it is in words."""

    holds: bool | None
    text: str


def read_record(folder: Path) -> dict[str, Any]:
    """Return the result.json of a folder, empty where it has none that can be read."""
    try:
        record = json.loads(read_regular(folder / "result.json", MOST_RECORD_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def list_places(settings: Settings, db: Rows, uid: str) -> Media:
    from agent.ledger.places import Places
    from agent.ledger.reader import list_media

    return list_media(db, uid, Places(settings.folders.share, settings.folders.state))


def is_used_file(path: Path, sha256: str | None) -> bool:
    """Whether a file is the one that was used. Raises OSError."""
    with path.open("rb") as file:
        return hash_file(file) == sha256
