"""Folders of the inbox: each is scanned like the inbox, and its results come under one folder of its name.

A folder with the name of a library avatar takes voices alone: each is spoken by that avatar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.fs import make_safe_name
from agent.intake.paths import is_utf8
from agent.intake.scanner import Inbox

MOST = 100
"""Folders that are looked into; the others wait until some are empty or gone."""


class InboxFolders:
    """The folders right below the inbox, but not those below them. `is_avatar`: whether the library has that name."""

    def __init__(self, inbox: Inbox, is_avatar: Callable[[str], bool]) -> None:
        self._inbox, self._is_avatar = inbox, is_avatar
        self._found: dict[str, Inbox] = {}

    def __iter__(self) -> Iterator[Inbox]:
        return iter(self._found.values())

    def scan(self, now_s: float, rest_s: float) -> None:
        """Read each folder that the last scan of the inbox has found. One that can't be read has nothing in it."""
        names = [name for name, (kind, _) in sorted(self._inbox.others.items()) if kind == "folder" and is_plain(name)]
        self._found = {name: self._found.get(name) or self._make(name) for name in names[:MOST]}
        for name, folder in self._found.items():
            folder.settle_s, folder.piece_settle_s = self._inbox.settle_s, self._inbox.piece_settle_s
            folder.max_job_bytes, folder.rest_s = self._inbox.max_job_bytes, rest_s
            folder.speaks_texts = self._inbox.speaks_texts
            if folder.scan(now_s):
                folder.is_avatar = bool(folder.tracked) and self._is_avatar(name)
            else:
                folder.forget_all()

    @property
    def changes(self) -> tuple[tuple[str, int, str], ...]:
        """What differs from an earlier value where something in a folder has changed since."""
        return tuple((name, folder.changes, folder.problem) for name, folder in self._found.items())

    def explain(self, name: str) -> tuple[str, str] | None:
        """Return why nothing in a folder is taken, and what to do; None where jobs in it are taken."""
        if not is_plain(name):
            return "a folder whose name the outbox can't have", "rename it, without dots at its ends and odd characters"
        if (folder := self._found.get(name)) is None:
            full = len(self._found) >= MOST
            return (f"only {MOST} folders are looked into at a time", "remove those that are done") if full else None
        if folder.problem:
            return f"a folder that can't be read: {folder.problem.rpartition(': ')[2]}", "let the daemon's user read it"
        return None

    def _make(self, name: str) -> Inbox:
        inbox = self._inbox
        return Inbox(
            inbox.folder / name,
            inbox.claimed,
            inbox.settle_s,
            inbox.max_job_bytes,
            inbox.is_job_file,
            entries=inbox.entries,
            batch=make_safe_name(name),
        )


def is_plain(name: str) -> bool:
    """Whether a folder of this name can be one of the outbox."""
    return is_utf8(name) and make_safe_name(name) == name
