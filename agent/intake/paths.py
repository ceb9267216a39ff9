"""Names as Windows and macOS see them: without regard to case and Unicode form."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path, PurePosixPath

from agent.intake.scanner import fingerprint

CLOCK_STEP_NS = 1_000_000_000
"""Two changes of a folder this close together may bear the same time."""


class Lookup:
    """Finds files for those who spell them as they like."""

    def __init__(self) -> None:
        self._listings: dict[Path, tuple[int, dict[str, list[str]]]] = {}

    def __call__(self, folder: Path, rest: PurePosixPath) -> Path | None:
        """The regular file at folder/rest, or the only one that differs from it in case or Unicode form alone."""
        if fingerprint(follow(folder / rest)):
            return folder / rest
        path = folder
        for part in rest.parts:
            twins = [] if part == ".." else self._alike(path, part)
            if len(twins) != 1:
                return None
            path = path / twins[0]
        return path if fingerprint(follow(path)) else None

    def _alike(self, folder: Path, name: str) -> list[str]:
        """Entries that go by this name; only the one spelt so if there is one."""
        twins = self._listing(folder).get(folded(name), [])
        return [name] if name in twins else twins

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        """Names by their folded form. Kept while the folder rests: many jobs may wait for media at once."""
        try:
            changed = folder.stat().st_mtime_ns
            kept = self._listings.get(folder)
            if kept is None or kept[0] != changed:
                names: dict[str, list[str]] = {}
                for path in folder.iterdir():
                    names.setdefault(folded(path.name), []).append(path.name)
                kept = (changed if time.time_ns() - changed > CLOCK_STEP_NS else 0, names)
                self._listings[folder] = kept
        except OSError:
            return {}
        return kept[1]


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def follow(path: Path) -> Path:
    """Links followed; unlike Path.resolve it has no trouble with loops and names that are too long."""
    return Path(os.path.realpath(path))
