"""A zip in the inbox: a batch, like the folder that was packed. A program beside the daemon unpacks it.

The folder is complete when it gets its name, by one rename; the archive is in it, hidden, until all jobs are taken.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agent.errors import ErrorCode
from agent.fs import Fingerprint, discard, make_safe_name, read_limited
from agent.fs.folders import move
from agent.intake import unpack
from agent.intake.scanner import Candidate, Inbox, to_text
from agent.intake.tables import SOURCES, discarding_on_error, give_name, make_unnamed_folder
from agent.jobs.json_text import BadJob
from agent.settings import Settings
from gpu_pool.process import Program

LONGEST_S = 600.0
"""How long unpacking may take."""
PROBLEM_BYTES = 4096


class RunningProgram(Protocol):
    """A program that runs beside the daemon."""

    @property
    def exit_code(self) -> int | None: ...
    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Unpacking:
    """An archive that is being unpacked into a folder without a name yet."""

    name: str
    fingerprint: Fingerprint
    folder: Path
    program: RunningProgram
    until_s: float


Start = Callable[[Settings, Path, Path, bool], RunningProgram]
"""Starts the program for an archive and a folder; whether the library has an avatar of its name. Raises OSError."""


def start_program(settings: Settings, archive: Path, folder: Path, is_avatar: bool) -> RunningProgram:
    limits = settings.limits
    sizes = (limits.media_mib << 20, int(limits.archive_gib * 2**30), limits.min_free_bytes)
    args = [str(archive), str(folder), "--bounds", *map(str, sizes)]
    flags = {
        "--is-avatar": is_avatar,
        "--walls": settings.pool.walls,
        "--text-voices": bool(settings.speech.command),
    }
    args += [flag for flag, is_set in flags.items() if is_set]
    return Program("agent.intake.unpack", args, b"", settings.folders.logs / "unpack.log")


@dataclass
class ZipFiles:
    """Unpacks the archives of the inbox, one at a time.

    refused    the archives that are not unpacked, as they are, and why
    others     the archives without a job, as they are: they are read once
    is_avatar  whether the library has an avatar of that name
    """

    inbox: Inbox
    is_avatar: Callable[[str], bool]
    start: Start = start_program
    refused: dict[str, tuple[Fingerprint, BadJob]] = field(default_factory=dict)
    others: set[Fingerprint] = field(default_factory=set)
    _running: Unpacking | None = None

    @property
    def folder(self) -> Path | None:
        """The folder that is being filled, None while no archive is unpacked."""
        return self._running.folder if self._running else None

    def step(self, settings: Settings, now_s: float) -> None:
        """Take up what was unpacked, or start with the next archive."""
        if self._running is not None:
            code = self._running.program.exit_code
            if code is None and now_s < self._running.until_s:
                return
            self._end(self._running, code)
        self._start_next(settings, now_s)

    def _start_next(self, settings: Settings, now_s: float) -> None:
        tracked, names = self.inbox.tracked, sorted(self.inbox.names.archives)
        self.refused = {name: one for name, one in self.refused.items() if name in tracked}
        self.others &= {tracked[name].fingerprint for name in names}
        for name in names:
            path, mark = self.inbox.folder / name, tracked[name].fingerprint
            is_known = mark in self.others or self.refused.get(name, (None,))[0] == mark
            if is_known or self.inbox.entries.is_blocked(path) or not self.inbox.is_settled(name, now_s):
                continue
            with self.inbox.entries.guard(path, "be unpacked"):
                stem = make_safe_name(to_text(path.stem))
                folder = make_unnamed_folder(self.inbox.folder, stem)
                with discarding_on_error(folder):
                    program = self.start(settings, path, folder, self.is_avatar(stem))
                self._running = Unpacking(name, mark, folder, program, now_s + LONGEST_S)
                return

    def _end(self, running: Unpacking, code: int | None) -> None:
        self._running = None
        running.program.kill()
        path, tracked = self.inbox.folder / running.name, self.inbox.tracked.get(running.name)
        if tracked is None or tracked.fingerprint != running.fingerprint:  # it was changed or removed meanwhile
            discard(running.folder)
            return
        with self.inbox.entries.guard(path, "be unpacked"):
            if code == 0:
                with discarding_on_error(running.folder):
                    move(path, running.folder / SOURCES[1])
                give_name(self.inbox.folder, running.folder, make_safe_name(to_text(path.stem)))
                self.inbox.forget(running.name)
                return
            bad = None if code == unpack.REFUSED else make_refusal("it can't be unpacked", "pack it again")
            bad = bad or read_problem(running.folder)
            discard(running.folder)
            if code == unpack.NO_ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if code == unpack.NO_JOB:
                self.others.add(running.fingerprint)
            else:
                self.refused[running.name] = running.fingerprint, bad

    def find_refused(self) -> Iterator[tuple[Candidate, BadJob]]:
        """Yield the archives that are not unpacked, and why."""
        for name, (mark, bad) in self.refused.items():
            tracked = self.inbox.tracked.get(name)
            if tracked is not None and tracked.fingerprint == mark:
                yield Candidate(Path(name).stem, (name,)), bad

    def close(self) -> None:
        """End the program; the next start removes what it has written."""
        if self._running is not None:
            self._running.program.kill()
            self._running = None


def make_refusal(message: str, hint: str) -> BadJob:
    return BadJob(ErrorCode.UNSUPPORTED_FILE, f"the archive was not unpacked: {message}", hint)


def read_problem(folder: Path) -> BadJob:
    """Return what the program has said of the archive."""
    try:
        said = json.loads(read_limited(folder / unpack.PROBLEM, PROBLEM_BYTES) or b"")
        return make_refusal(str(said["message"])[:500], str(said["hint"])[:500])
    except (ValueError, KeyError, TypeError, RecursionError):
        return make_refusal("it can't be read", "pack or copy it again")
