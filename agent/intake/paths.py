"""Names as Windows and macOS compare them: regardless of case and Unicode form."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path, PurePosixPath

from agent.fs import take_fingerprint

CLOCK_STEP_NS = 1_000_000_000
"""Two changes of a folder this close together may have the same time."""


class PathLookup:
    """Finds files by names whose spelling may differ in case and Unicode form."""

    def __init__(self) -> None:
        self._listings: dict[Path, tuple[int, dict[str, list[str]]]] = {}

    def find(self, folder: Path, rest: PurePosixPath) -> Path | None:
        """Return the file at folder/rest, or the only one of that name in another spelling."""
        if take_fingerprint(follow_links(folder / rest)):
            return folder / rest
        path = folder
        for part in rest.parts:
            matches = [] if part == ".." else self._match(path, part)
            if len(matches) != 1:
                return None
            path = path / matches[0]
        return path if take_fingerprint(follow_links(path)) else None

    def _match(self, folder: Path, name: str) -> list[str]:
        """Return the entries of this name; only the exact one if there is one."""
        matches = self._list_names(folder).get(fold_name(name), [])
        return [name] if name in matches else matches

    def _list_names(self, folder: Path) -> dict[str, list[str]]:
        """Return the names of a folder by their folded form.

        They are kept while the folder is unchanged.
        """
        try:
            changed_ns = folder.stat().st_mtime_ns
            listing = self._listings.get(folder)
            if listing is None or listing[0] != changed_ns:
                names: dict[str, list[str]] = {}
                for path in folder.iterdir():
                    names.setdefault(fold_name(path.name), []).append(path.name)
                listing = (changed_ns if time.time_ns() - changed_ns > CLOCK_STEP_NS else 0, names)
                self._listings[folder] = listing
        except OSError:
            return {}
        return listing[1]


def fold_name(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def follow_links(path: Path) -> Path:
    """Return the path with links followed.

    Unlike Path.resolve it accepts loops and overlong names.
    """
    return Path(os.path.realpath(path))
