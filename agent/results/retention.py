"""Retention: deletes old inputs of finished jobs, logs and rows; never a result, nor anything of an unfinished job."""

from __future__ import annotations

import os
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.clock import Clock
from agent.fs import follow_links, is_file, is_folder
from agent.fs.folders import list_names, make_folders, move, remove, remove_empty
from agent.ledger.ledger import Ledger
from agent.results.clock_trust import ClockTrust
from agent.results.outbox import get_size
from agent.service.problems import Problems
from agent.settings import DAY_S, Settings

EVERY_S = 3600.0
BATCH = 16
"""Folders that are deleted in one turn of the daemon."""
ROWS = 128
"""Rows that are deleted in one turn."""
DAY_MS = 86_400_000
CLIENT_COPY = re.compile(
    r"-[0-9a-f]{8}\.(avatar|audio|soundtrack|background)(-\d+)?(\.[^.]*)?$|^\.[0-9a-fA-F-]{32,36}\.tmp$"
)
"""Names of the copies that our clients make in the inbox, each for one job."""
LEFTOVER_DAYS = 1.0
"""How old a temporary file of ours on the share is before it counts as left by a crash."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder that may be deleted, its time (milliseconds since 1970), and its size if that counts."""

    path: Path
    at_ms: int
    bytes: int = 0


def select_surplus(entries: Iterable[Entry], at_ms: int, days: float, max_bytes: int = 0) -> list[Entry]:
    """Return those older than `days`, and those beyond the newest that fit into `max_bytes`; oldest first.

    0 is no limit. Size alone never takes the newest entry, however large it is.
    """
    oldest_ms = at_ms - round(days * DAY_MS) if days else None
    chosen, total = [], 0
    for place, entry in enumerate(sorted(entries, key=lambda entry: (-entry.at_ms, entry.path))):
        total += entry.bytes
        too_old = oldest_ms is not None and entry.at_ms < oldest_ms
        if too_old or (max_bytes and place and total > max_bytes):
            chosen.append(entry)
    return chosen[::-1]


class Retention:
    """Deletes in rounds, about once an hour. `list_open`: returns the files of the state that processes have open."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        problems: Problems,
        clock: Clock,
        list_open: Callable[[], set[Path]],
    ) -> None:
        self.settings, self.ledger, self.problems, self.clock = settings, ledger, problems, clock
        self._list_open = list_open
        self._trust = ClockTrust(ledger, clock)
        self._round_ms = 0
        self._next_round_s = 0.0
        self._surplus: deque[Path] = deque()
        self._rows_left = self._in_round = False
        self._errors: list[str] = []

    def step(self) -> bool:
        """Go on with the round, or begin one if it is due. Return whether there is more to delete at once."""
        now_s = self.clock.now_s()
        if now_s >= self._next_round_s:
            self._next_round_s = now_s + EVERY_S
            self._begin(self.clock.at_ms())
        if self._surplus:
            self._delete([self._surplus.popleft() for _ in range(min(BATCH, len(self._surplus)))])
        elif self._rows_left:
            days = self.settings.retention.rows_days
            self._rows_left = self.ledger.retention.delete_old(self._round_ms - round(days * DAY_MS), ROWS) == ROWS
        more = bool(self._surplus) or self._rows_left
        if self._in_round and not more:
            more_errors = f", and {len(self._errors) - 1} more" if len(self._errors) > 1 else ""
            self.problems.set("retention", (self._errors or [""])[0] + more_errors)
            self._in_round = False
        return more

    def trust_clock(self) -> None:
        """Begin a round by the calendar as it is now: a person says that it is right."""
        self._trust.accept()
        self._next_round_s = 0.0

    def _begin(self, at_ms: int) -> None:
        doubt = self._trust.check()
        self.problems.set("clock", doubt)
        self._rows_left = self.settings.retention.rows_days > 0 and not doubt
        self._in_round, self._errors, self._round_ms = True, [], at_ms
        self._surplus = deque(self._find_unneeded() if doubt else [*self._find_surplus(at_ms), *self._find_unneeded()])

    def _find_surplus(self, at_ms: int) -> Iterator[Path]:
        """Yield everything that is too old or too much now. Each folder that can't be read is a problem by itself."""
        folders, kept = self.settings.folders, self.settings.retention
        archived = self._list_archive(folders.archive, sized=kept.archive_gib > 0)
        yield from _paths(select_surplus(archived, at_ms, kept.archive_days, _bytes(kept.archive_gib)))
        failed = self._list(list_folders, folders.failed, sized=kept.failed_gib > 0)
        yield from _paths(select_surplus(failed, at_ms, kept.failed_days, _bytes(kept.failed_gib)))
        yield from _paths(self._find_left_in_inbox(at_ms))
        in_use = self._list_open()
        logs = [*self._list(list_files, folders.logs), *self._list(list_files, folders.selftest_logs)]
        closed = (entry for entry in logs if entry.path not in in_use)
        yield from _paths(select_surplus(closed, at_ms, kept.logs_days))
        leftovers = (entry for entry in self._list(list_files, folders.share) if is_leftover(entry.path.name))
        yield from _paths(select_surplus(leftovers, at_ms, LEFTOVER_DAYS))

    def _find_left_in_inbox(self, at_ms: int) -> list[Entry]:
        """Return the files of the inbox that are too old to be part of a job that is still to come."""
        files = self._list(list_dropped, self.settings.folders.inbox)
        copies = [entry for entry in files if CLIENT_COPY.search(entry.path.name)]
        others = [entry for entry in files if not CLIENT_COPY.search(entry.path.name)]
        wait_days, days = self.settings.inbox.wait_media_s / DAY_S, self.settings.retention.inbox_days
        old = select_surplus(others, at_ms, days + wait_days if days else 0)
        return [*select_surplus(copies, at_ms, LEFTOVER_DAYS + wait_days), *old]

    def _find_unneeded(self) -> Iterator[Path]:
        """Yield what no job needs, however old it is."""
        for leftover in (self.settings.folders.trash, self.settings.folders.work):
            yield from _paths(self._list(list_folders, leftover))

    def _list(self, list_entries: Callable[..., Iterator[Entry]], folder: Path, **how: bool) -> list[Entry]:
        """Return the entries of a folder; none, and its problem is noted, where it can't be read."""
        try:
            return list(list_entries(folder, **how))
        except OSError as error:
            self._note_error(error)
            return []

    def _list_archive(self, archive: Path, *, sized: bool) -> Iterator[Entry]:
        """Yield the folders of jobs below those of the days, each at most as old as its day."""
        for day in self._list(list_folders, archive):
            try:
                since_ms = round(datetime.strptime(day.path.name, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000)
            except ValueError:
                continue  # not a folder of ours
            for entry in self._list(list_folders, day.path, sized=sized):
                yield Entry(entry.path, max(entry.at_ms, since_ms), entry.bytes)

    def _delete(self, paths: list[Path]) -> None:
        """Delete paths, but what a job has come to need since the round began."""
        needed = self.ledger.retention.find_needed()
        work = self.settings.folders.work
        for path in paths:
            if path.parent == work and path.name in needed.uids:
                continue
            if needed.has_below(str(path)) or needed.has_below(str(follow_links(path))):
                continue
            try:
                self._remove(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._note_error(error)

    def _remove(self, path: Path) -> None:
        """Delete a file or folder; users see a folder of the share whole, or not at all once it is in the trash."""
        trash, day = self.settings.folders.trash, path.parent
        if is_folder(path) and path.is_relative_to(self.settings.folders.share) and day != trash:
            doomed = trash / secrets.token_hex(16)
            make_folders([trash])
            move(path, doomed)
            path = doomed
        remove(path)
        if day.parent == self.settings.folders.archive:
            remove_empty(day)

    def _note_error(self, error: OSError) -> None:
        self._errors.append(f"what is old can't be deleted: {error.strerror}: {error.filename}")


# listings -------------------------------------------------------------------------------------------------------------


def list_folders(folder: Path, *, sized: bool = False) -> Iterator[Entry]:
    """Yield the folders in a folder, but no links to folders."""
    for path in _list_sorted(folder):
        if is_folder(path) and not path.is_symlink():
            with suppress(FileNotFoundError):  # deleted meanwhile
                yield Entry(path, _mtime_ms(path), sum_sizes(path) if sized else 0)


def list_files(folder: Path) -> Iterator[Entry]:
    """Yield the files in a folder, but no links to files."""
    for path in _list_sorted(folder):
        if is_file(path) and not path.is_symlink():
            with suppress(FileNotFoundError):
                yield Entry(path, _mtime_ms(path))


def list_dropped(folder: Path) -> Iterator[Entry]:
    """Yield the files in the inbox, each as old as its last change here: a copy may have the time of its original."""
    for entry in list_files(folder):
        with suppress(FileNotFoundError):
            yield Entry(entry.path, max(entry.at_ms, entry.path.lstat().st_ctime_ns // 1_000_000))


def is_leftover(name: str) -> bool:
    """Whether a file of the share is a temporary one of ours."""
    return name.startswith((".status.json.", ".status.db.")) and name.endswith(".tmp")


def sum_sizes(folder: Path) -> int:
    """Return the bytes of all files below, links not followed."""
    return sum(max(0, get_size(Path(at) / name)) for at, _, names in os.walk(folder) for name in names)


def _list_sorted(folder: Path) -> list[Path]:
    return [folder / name for name in list_names(folder)] if os.path.lexists(folder) else []


def _mtime_ms(path: Path) -> int:
    return path.lstat().st_mtime_ns // 1_000_000


def _paths(entries: Iterable[Entry]) -> Iterator[Path]:
    return (entry.path for entry in entries)


def _bytes(gib: float) -> int:
    return int(gib * 2**30)
