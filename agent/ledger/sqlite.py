"""sqlite-utils without numpy and pandas, which it imports where they are installed, to accept their types.

The daemon stores none of those, and starts sooner and smaller without them.
"""

from __future__ import annotations

import sys

hidden = {name: sys.modules.get(name) for name in ("numpy", "pandas")}
sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
try:
    from sqlite_utils import Database, Migrations
finally:
    for name, module in hidden.items():
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module

__all__ = ["Database", "Migrations"]
