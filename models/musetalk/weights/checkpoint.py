"""Open the weight files of MuseTalk; each mistake comes with the command that repairs it."""

from __future__ import annotations

from pathlib import Path

from models.checkpoints import states
from models.checkpoints.states import State
from models.musetalk.weights.index import repair_hint
from models.types import EngineError


def read_state(path: Path, name: str) -> State:
    """Return name -> tensor of a file that the index knows as `name`; see `states.read_state`."""
    return states.read_state(path, name, repair_hint(name))


def read_metadata(path: Path, name: str) -> dict[str, str]:
    """Return what the writer of a safetensors file said of it. Raises EngineError weights_damaged."""
    return states.read_metadata(path, name, repair_hint(name))


def damaged_error(name: str, what: str) -> EngineError:
    return states.damaged_error(name, what, repair_hint(name))
