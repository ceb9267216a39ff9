"""sqlite-utils without numpy and pandas, which it imports where they are installed, to accept their types.

The daemon stores none of those, and starts sooner and smaller without them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

hidden = {name: sys.modules.get(name) for name in ("numpy", "pandas")}
sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
try:
    from sqlite_utils import Database as PlainDatabase
    from sqlite_utils import Migrations
finally:
    for name, module in hidden.items():
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module

__all__ = ["Database", "Migrations", "PlainDatabase"]


class Database(PlainDatabase):
    """A database in which a block within a transaction is part of it: savepoints were most of all statements."""

    @contextmanager
    def atomic(self) -> Iterator[Database]:
        """Make one transaction of the block, or leave it to the transaction that there is.

        What raises within the latter must have changed nothing, or end the transaction, too.
        """
        if self.conn.in_transaction:
            yield self
            return
        with super().atomic():
            yield self
