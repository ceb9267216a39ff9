"""What has grown old or too much goes: inputs of finished jobs, logs, rows. Never results, nor what is unfinished."""

from __future__ import annotations

import os
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.ledger.ledger import Ledger
from agent.service.problems import Troubles
from agent.settings import Settings

EVERY_S = 3600.0
BATCH = 16
"""Folders that are deleted in one turn of the daemon."""
ROWS = 128
"""Rows that are deleted in one turn."""
DAY_MS = 86_400_000
CRUMB_DAYS = 1.0
"""How long a temporary file of ours lies on the share before it counts as left by a crash."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that may be deleted: where it lies, since when (milliseconds since 1970), and its size if it counts."""

    path: Path
    at_ms: int
    bytes: int = 0


def surplus(entries: Iterable[Entry], at: int, days: float, max_bytes: int = 0) -> list[Entry]:
    """Which entries go, oldest first: those older than `days`, and those beyond the newest that fit into `max_bytes`.

    0 is no limit. Size alone never takes the newest entry, however large it is.
    """
    oldest_ms = at - round(days * DAY_MS) if days else None
    going, total = [], 0
    for place, entry in enumerate(sorted(entries, key=lambda entry: (-entry.at_ms, entry.path))):
        total += entry.bytes
        too_old = oldest_ms is not None and entry.at_ms < oldest_ms
        if too_old or (max_bytes and place and total > max_bytes):
            going.append(entry)
    return going[::-1]


class Retention:
    """The round, about once an hour. `in_use`: files of the state that processes hold open."""

    def __init__(self, settings: Settings, ledger: Ledger, troubles: Troubles, in_use: Callable[[], set[Path]]) -> None:
        self.settings, self.ledger, self.troubles, self.in_use = settings, ledger, troubles, in_use
        self._next = 0.0
        self._doomed: deque[Path] = deque()
        self._rows_left = self._under_way = False
        self._complaint = ""

    def step(self, now: float, at: int) -> bool:
        """Go on with the round, or begin one if it is time. True if there is more to delete at once."""
        if now >= self._next:
            self._next = now + EVERY_S
            self._begin(at)
        if self._doomed:
            self._delete([self._doomed.popleft() for _ in range(min(BATCH, len(self._doomed)))])
        elif self._rows_left:
            days = self.settings.retention.rows_days
            self._rows_left = self.ledger.retention.forget(at - round(days * DAY_MS), ROWS) == ROWS
        more = bool(self._doomed) or self._rows_left
        if self._under_way and not more:
            self.troubles.tell("retention", self._complaint)
            self._under_way = False
        return more

    def _begin(self, at: int) -> None:
        self._rows_left = self.settings.retention.rows_days > 0
        self._under_way, self._complaint = True, ""
        try:
            self._doomed = deque(self._surplus(at))
        except OSError as error:
            self._complain(error)

    def _surplus(self, at: int) -> Iterator[Path]:
        """Everything that is too old or too much now."""
        folders, kept = self.settings.folders, self.settings.retention
        archived = archive_entries(folders.archive, sized=kept.archive_gib > 0)
        yield from _paths(surplus(archived, at, kept.archive_days, _bytes(kept.archive_gib)))
        failed = folder_entries(folders.failed, sized=kept.failed_gib > 0)
        yield from _paths(surplus(failed, at, kept.failed_days, _bytes(kept.failed_gib)))
        in_use = self.in_use()
        logs = (entry for entry in file_entries(folders.logs) if entry.path not in in_use)
        yield from _paths(surplus(logs, at, kept.logs_days))
        crumbs = (entry for entry in file_entries(folders.share) if is_crumb(entry.path.name))
        yield from _paths(surplus(crumbs, at, CRUMB_DAYS))
        for leftover in (folders.trash, folders.work):
            yield from _paths(folder_entries(leftover, sized=False))

    def _delete(self, paths: list[Path]) -> None:
        """What a job has come to need since the round began stays."""
        needed = self.ledger.retention.needed()
        work = self.settings.folders.work
        for path in paths:
            if path.parent == work and path.name in needed.uids:
                continue
            if needed.within(str(path)) or needed.within(str(path.resolve())):
                continue
            try:
                self._remove(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._complain(error)

    def _remove(self, path: Path) -> None:
        """Folders that users see go whole: first by a rename, so that no half of a job is ever found there."""
        if not path.is_dir():
            path.unlink()
            return
        trash, day = self.settings.folders.trash, path.parent
        if path.is_relative_to(self.settings.share) and day != trash:
            trash.mkdir(exist_ok=True)
            path = path.rename(trash / secrets.token_hex(8))
        shutil.rmtree(path)
        if day.parent == self.settings.folders.archive and not any(day.iterdir()):
            day.rmdir()

    def _complain(self, error: OSError) -> None:
        self._complaint = f"what is old can't be deleted: {error.strerror}: {error.filename}"


# what there is -------------------------------------------------------------------------------------------------------


def archive_entries(archive: Path, *, sized: bool) -> Iterator[Entry]:
    """The jobs of each day's folder, as old as that day at the most."""
    for day in folder_entries(archive, sized=False):
        try:
            since_ms = round(datetime.strptime(day.path.name, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000)
        except ValueError:
            continue  # not a folder of ours
        for entry in folder_entries(day.path, sized=sized):
            yield Entry(entry.path, max(entry.at_ms, since_ms), entry.bytes)


def folder_entries(folder: Path, *, sized: bool) -> Iterator[Entry]:
    """The folders in a folder; links and loose files are somebody else's."""
    for path in _listed(folder):
        if path.is_dir() and not path.is_symlink():
            with suppress(FileNotFoundError):  # somebody was quicker
                yield Entry(path, _mtime_ms(path), size_below(path) if sized else 0)


def file_entries(folder: Path) -> Iterator[Entry]:
    for path in _listed(folder):
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):
                yield Entry(path, _mtime_ms(path))


def is_crumb(name: str) -> bool:
    """Whether a file of the share is what a write of ours left when it was cut off."""
    return name.startswith((".status.json.", ".status.db.")) and name.endswith(".tmp")


def size_below(folder: Path) -> int:
    """Bytes of all files below, links not followed."""
    return sum((Path(at) / name).lstat().st_size for at, _, names in os.walk(folder) for name in names)


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _mtime_ms(path: Path) -> int:
    return path.lstat().st_mtime_ns // 1_000_000


def _paths(entries: Iterable[Entry]) -> Iterator[Path]:
    return (entry.path for entry in entries)


def _bytes(gib: float) -> int:
    return int(gib * 2**30)
