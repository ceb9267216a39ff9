"""The process of `musedrop page`, which that command becomes when it has read the settings.

It is open all day beside the work: what only reads settings and prints takes more memory than the page itself.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from agent.cli.page.launch import GIVEN
from agent.cli.presence import describe_absence_now
from agent.errors import UserError
from agent.fs.layout import Folders
from agent.page import server
from agent.service.log import configure_logging

if TYPE_CHECKING:
    from agent.settings import Settings


def read_given(text: str) -> tuple[Settings, Path, str]:
    """Return the settings, as far as the page reads them, their file, and the address."""
    given: Any = json.loads(text, object_hook=lambda keys: SimpleNamespace(**keys))
    settings, folders = given.settings, given.folders
    settings.share = Path(settings.share)
    settings.folders = Folders(*map(Path, (folders.share, folders.state, folders.cache, folders.logs)))
    return cast("Settings", settings), Path(given.source), given.listen


def main() -> None:
    settings, source, address = read_given(os.environ.pop(GIVEN))
    configure_logging(settings)
    try:
        server.serve(settings, address, lambda: describe_absence_now(settings, source), source)
    except UserError as error:
        sys.stderr.write(f"musedrop: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
