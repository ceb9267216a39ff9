"""Where weights are published, and whether there is room for them. Standard library only: the daemon looks here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from models.checkpoints.configs import KnownConfig
from models.types import EngineError

HUGGING_FACE = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file is published. `bytes` and `sha256` are of the published file, None where they are not known.

    Configs have neither: `config` holds the values of the published one.
    """

    url: str
    bytes: int | None = None
    sha256: str | None = None
    config: KnownConfig | None = None


def hub_path(repository: str, file: str) -> str:
    """Return the address below an endpoint of the Hugging Face hub, without the endpoint."""
    return f"/{repository}/resolve/main/{file}"


def check_room(root: Path, needed_bytes: int, what: str) -> None:
    """Raise EngineError disk_full before anything is written that would not fit; `what` ends in "need" or "needs"."""
    free = shutil.disk_usage(root).free
    if needed_bytes > free:
        raise EngineError(
            "disk_full",
            f"{what} {needed_bytes / 2**30:.1f} GiB more in {root}, where {free / 2**30:.1f} GiB are free",
            "free some space, or set musetalk.models_dir to a folder on a larger disk",
        )
