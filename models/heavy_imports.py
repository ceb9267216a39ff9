"""Import large libraries without the collector of cycles, which takes a fifth of the time and finds nothing."""

from __future__ import annotations

import gc
import sys
from importlib import import_module


def import_heavy(name: str) -> None:
    """Import a module that imports many.

    All that there is then counts as permanent, so that later collections don't look through it either.
    """
    if name in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import_module(name)
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
