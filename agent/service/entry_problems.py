"""Entries of the share that could not be handled: each is set aside by itself, and the next one has its turn.

An entry is tried again when it, what the error named, or the rights of its folder have changed, and after a pause.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("musedrop")

RETRY_S, LONGEST_RETRY_S = 5.0, 60.0
"""The pause before an unchanged entry is tried again: the first one, and the longest after each was doubled."""
FORGET_S = 1.0
"""Seconds between two searches for entries that are gone."""
SHOWN = 3
"""Entries of one kind of problem that are named one by one."""

FileState = tuple[int, ...] | None
"""What an entry is without its content: it changes with each rename, chmod, chown, chattr and write."""


@dataclass(frozen=True, slots=True)
class EntryProblem:
    """Why an entry could not be handled, and when it is tried again though nothing has changed; monotonic seconds.

    deed     what can't be done, such as "be moved"
    watched  the entry and the paths that the error named; `states` is what they were
    """

    deed: str
    reason: str
    watched: tuple[Path, ...]
    states: tuple[FileState, ...]
    pause_s: float
    due_s: float


class EntryProblems:
    """The problems by the path of their entries; `root` is left out where they are named."""

    def __init__(self, root: Path = Path("/"), now_s: Callable[[], float] = time.monotonic) -> None:
        self._root, self._now_s = root, now_s
        self._found: dict[Path, EntryProblem] = {}
        self._next_forget_s = 0.0

    @property
    def count(self) -> int:
        return len(self._found)

    def __contains__(self, path: object) -> bool:
        return path in self._found

    def has_below(self, folder: Path) -> bool:
        """Whether an entry of the folder, or the folder itself, has a problem."""
        return any(path == folder or path.parent == folder for path in self._found)

    def is_blocked(self, path: Path) -> bool:
        """Whether the entry could not be handled before, and there is no reason to try it again now."""
        problem = self._found.get(path)
        return problem is not None and self._now_s() < problem.due_s and problem.states == _read_states(problem.watched)

    @contextmanager
    def guard(self, path: Path, deed: str) -> Iterator[None]:
        """Note an error of the block as the problem of this entry; without one its problem is over."""
        try:
            yield
        except (OSError, UnicodeError) as error:
            self.note(path, deed, error)
        else:
            self.clear(path)

    def note(self, path: Path, deed: str, error: OSError | UnicodeError | str) -> bool:
        """Set an entry aside. Return whether the problem is a new one."""
        before, now_s = self._found.get(path), self._now_s()
        watched = (path, *_list_named(error))
        pause_s = min(2 * before.pause_s, LONGEST_RETRY_S) if before else RETRY_S
        problem = EntryProblem(deed, _describe(error), watched, _read_states(watched), pause_s, now_s + pause_s)
        self._found[path] = problem
        if before is not None and (before.deed, before.reason) == (problem.deed, problem.reason):
            return False
        log.error("%s; it is tried again when it changes", self._make_text(path, problem))
        return True

    def clear(self, path: Path) -> None:
        """End the problem of an entry, if it has one."""
        if problem := self._found.pop(path, None):
            log.info("over: %s", self._make_text(path, problem))

    def forget_gone(self) -> None:
        """End the problems of entries that are no longer there."""
        now_s = self._now_s()
        if self._found and now_s >= self._next_forget_s:
            self._next_forget_s = now_s + FORGET_S
            for path in [path for path in self._found if not os.path.lexists(path) and _is_reachable(path.parent)]:
                self.clear(path)

    def text_of(self, path: Path) -> str:
        """Return what is wrong with the entry, "" if nothing is."""
        problem = self._found.get(path)
        return self._make_text(path, problem) if problem else ""

    def reason_of(self, path: Path) -> str:
        """Return the system's word for what is wrong with the entry, "" if nothing is."""
        problem = self._found.get(path)
        return problem.reason if problem else ""

    @property
    def texts(self) -> list[str]:
        """A sentence for each problem, or one for many of a kind."""
        kinds: dict[tuple[Path, str, str], list[Path]] = {}
        for path, problem in list(self._found.items()):
            kinds.setdefault((path.parent, problem.deed, problem.reason), []).append(path)
        sentences = []
        for (folder, deed, reason), paths in kinds.items():
            if len(paths) <= SHOWN:
                sentences += [f"{self._name(path)} can't {deed}: {reason}" for path in paths]
            else:
                named = ", ".join(_to_text(path.name) for path in sorted(paths)[:SHOWN])
                sentences.append(f"{len(paths)} entries of {self._name(folder)} can't {deed} ({reason}): {named} ...")
        return sentences

    def _make_text(self, path: Path, problem: EntryProblem) -> str:
        return f"{self._name(path)} can't {problem.deed}: {problem.reason}"

    def _name(self, path: Path) -> str:
        return _to_text(path.relative_to(self._root) if path.is_relative_to(self._root) else path)


def read_state(path: Path) -> FileState:
    """Return what an entry is; None where it can't be looked at."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read_states(paths: tuple[Path, ...]) -> tuple[FileState, ...]:
    """Return the states of paths, and the rights of their folders, whose other entries don't count."""
    folders = [state and state[:4] for path in paths for state in [read_state(path.parent)]]
    return (*(read_state(path) for path in paths), *folders)


def _list_named(error: OSError | UnicodeError | str) -> list[Path]:
    named = (error.filename, error.filename2) if isinstance(error, OSError) else ()
    return [Path(os.fsdecode(name)) for name in named if isinstance(name, (str, bytes)) and name]


def _describe(error: OSError | UnicodeError | str) -> str:
    if isinstance(error, str):
        return error
    if isinstance(error, UnicodeError):
        return "its name is no UTF-8"
    return error.strerror or str(error)


def _is_reachable(folder: Path) -> bool:
    return read_state(folder) is not None


def _to_text(path: Path | str) -> str:
    """Return a path as text; bytes that are not UTF-8 become question marks."""
    return os.fsencode(path).decode("utf-8", "replace")
