"""Replace the command `musedrop page` by the process that serves it. Standard library only."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from agent.settings import Settings

GIVEN = "MUSEDROP_PAGE"
"""The environment variable that holds what the process works with, as JSON."""
PACKAGES = Path(__file__).parents[3]


def become_page(settings: Settings, source: Path, address: str) -> NoReturn:
    """Replace this process by one that serves the page at an address."""
    folders = {name: str(getattr(settings.folders, name)) for name in ("share", "state", "cache", "logs")}
    given = {"settings": settings.model_dump(mode="json"), "folders": folders, "source": str(source), "listen": address}
    path = os.pathsep.join(filter(None, (str(PACKAGES), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, GIVEN: json.dumps(given), "PYTHONPATH": path, "MALLOC_ARENA_MAX": "1"}
    os.execve(sys.executable, [sys.executable, "-P", "-m", "agent.cli.page.program"], env)  # noqa: S606 - ourselves
