"""Paths in rows: relative to the share, the state or another folder that jobs may read, so that these can move.

A path below one of them is kept as `share:inbox/face.jpg`, `state:work/...` or `root0:/mnt/media//clips/face.jpg`,
all others as they are. Nothing outside the ledger sees this form.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = re.compile(r"root\d+")


class Places:
    """The folders as they are now. `list_roots` returns those of `media_roots` and `path_map`, in their order."""

    def __init__(
        self, share: Path | None = None, state: Path | None = None, list_roots: Callable[[], Iterable[Path]] = tuple
    ) -> None:
        self._named = {name: path for name, path in (("share", share), ("state", state)) if path is not None}
        self._list_roots = list_roots
        self._spellings: tuple[tuple[Path, ...], list[tuple[str, str]]] | None = None

    def spellings(self) -> list[tuple[str, str]]:
        """Return how the paths below each folder begin, and what a row has for that; the innermost folder first."""
        roots = tuple(self._list_roots())
        if self._spellings is None or self._spellings[0] != roots:
            folders = [(place, f"{name}:") for name, place in self._named.items()]
            folders += [(root, f"root{number}:{root}//") for number, root in enumerate(roots)]
            found = {(f"{path}/", short) for folder, short in folders for path in (str(folder), resolve(folder))}
            self._spellings = roots, sorted(found, key=lambda pair: (-len(pair[0]), pair))
        return self._spellings[1]

    def shorten(self, path: str) -> str:
        """Return the form that a row keeps."""
        for prefix, short in self.spellings():
            if path.startswith(prefix):
                return short + path[len(prefix) :]
        return path

    def expand(self, text: str) -> str:
        """Return the path that a row means now, with the links of the folder followed."""
        name, _, rest = text.partition(":")
        if text.startswith("/") or not (name in self._named or ROOT.fullmatch(name)):
            return text
        if name in self._named:
            return f"{resolve(self._named[name])}/{rest}"
        folder, _, rest = rest.partition("//")
        roots, number = list(self._list_roots()), int(name.removeprefix("root"))
        has_moved = Path(folder) not in roots and number < len(roots)
        return f"{resolve(roots[number] if has_moved else Path(folder))}/{rest}"

    def shorten_columns(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of a row with the paths that they hold as the row keeps them."""
        return self._change(columns, self.shorten)

    def expand_columns(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        return self._change(columns, self.expand)

    def _change(self, columns: Mapping[str, Any], act: Callable[[str], str]) -> dict[str, Any]:
        changed = dict(columns)
        if not self._named:
            return changed
        if changed.get("inputs"):
            changed["inputs"] = act(changed["inputs"])
        if changed.get("media"):
            changed["media"] = {
                role: {**medium, "path": act(medium["path"])} for role, medium in changed["media"].items()
            }
        return changed


NOWHERE = Places()
"""Paths stay as they are."""


@cache
def resolve(folder: Path) -> str:
    """Return the folder with its links followed, as it was at first."""
    return os.path.realpath(folder)
