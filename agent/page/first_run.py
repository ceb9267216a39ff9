"""The first run on the page: the steps of a set-up, and the files of the demo clip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.ledger.reader import LedgerError, Unreadable, open_reader
from agent.page import facts
from agent.setup import steps

if TYPE_CHECKING:
    from agent.settings import Settings

EXAMPLE = {"hello.jpg": "image/jpeg", "hello.wav": "audio/wav"}


def list_steps(settings: Settings, source: Path) -> list[dict[str, Any]]:
    """Return all steps; without a ledger no cards are known."""
    folders = settings.folders
    place = steps.Place(folders, source, Path(settings.musetalk.models_dir or folders.state / "models"))
    try:
        db = open_reader(folders.ledger)
        devices = facts.list_devices(db)
        db.close()
    except (LedgerError, Unreadable):
        devices = []
    return [step.to_dict() for step in steps.list_steps(place, devices)]


def read_example(name: str) -> bytes | None:
    """Return a file of the demo clip, None where this installation has none."""
    found = steps.find_example() or ()
    return next((path.read_bytes() for path in found if path.name == name), None)
