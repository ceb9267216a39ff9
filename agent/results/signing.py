"""Have verified results signed by a program of its own, which alone opens the private key."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from agent import __version__
from agent.credentials import FULL, KEY, is_installed
from agent.credentials.manifest import make_manifest
from agent.fs import discard, is_file, read_regular
from agent.fs.folders import list_names, make_folder
from agent.settings import CurrentSettings, Folders
from gpu_pool.process import Program

MOST_AT_ONCE, MOST_BYTES = 16, 60_000
"""Results that one program signs; what it reads is less than a pipe holds."""
MOST_TRIES, PROGRAM_S, POLL_S = 3, 600.0, 0.02
SLOWEST_BYTES_PER_S = 1 << 20
"""Of a large video on a slow share, whose bytes are read and written several times."""
MOST_REPORT_BYTES = 1 << 16


class RunningProgram(Protocol):
    @property
    def exit_code(self) -> int | None: ...

    def kill(self) -> None: ...


Start = Callable[[Folders, Sequence[str], bytes], RunningProgram]
"""Starts the program with arguments and its standard input. Raises OSError."""


def start_program(folders: Folders, args: Sequence[str], stdin: bytes) -> RunningProgram:
    return Program("agent.credentials.sign", args, stdin, folders.logs / "sign.log")


@dataclass(slots=True)
class Signer:
    """Signs staged results, several in one program. `start` takes the place of the real program in tests.

    tries    how often a result was given to a program that left no report of it
    problem  why results wait for another program later, "" while they don't
    """

    settings: CurrentSettings
    folders: Folders
    start: Start = start_program
    tries: dict[str, int] = field(default_factory=dict)
    problem: str = ""
    _running: RunningProgram | None = None
    _tokens: tuple[str, ...] = ()
    _until_s: float = 0.0

    @property
    def is_on(self) -> bool:
        return self.settings.current.credentials.sign == "auto" and is_installed()

    @property
    def is_running(self) -> bool:
        return self._running is not None

    def make_key(self, now_s: float) -> None:
        """Start the program without results, which makes the key of this installation, if there is none yet.

        Raises OSError.
        """
        if self.is_on and not self.is_running and not is_file(self.folders.credentials / KEY):
            self.begin((), now_s)

    def begin(self, staged: Iterable[tuple[Path, Mapping[str, Any]]], now_s: float) -> None:
        """Start signing results, each a staging folder with its record, as many as one program takes.

        One that a program has ended at is given to the next alone, so that the others aren't tried in vain with it.
        """
        names, jobs, seconds = self.settings.current.credentials.names, list[dict[str, Any]](), PROGRAM_S
        for folder, record in islice(staged, MOST_AT_ONCE):
            has_failed = bool(jobs) and folder.name in self.tries
            manifest = make_manifest(record, __version__, names=names)
            job = {"token": folder.name, "folder": str(folder), "video": record["video"], "manifest": manifest}
            if has_failed or (jobs and len(json.dumps([*jobs, job])) > MOST_BYTES):
                break
            jobs.append(job)
            seconds += (record.get("video_bytes") or 0) / SLOWEST_BYTES_PER_S
            if folder.name in self.tries:
                break
        make_folder(self.folders.credentials, 0o700)
        make_folder(self.folders.signed, 0o700)
        walls = ["--walls"] if self.settings.current.pool.walls else []
        args = ["--keys", str(self.folders.credentials), "--reports", str(self.folders.signed), *walls]
        self._tokens = tuple(job["token"] for job in jobs)
        for token in self._tokens:
            self.tries[token] = self.tries.get(token, 0) + 1
        self._running, self._until_s = self.start(self.folders, args, json.dumps(jobs).encode()), now_s + seconds

    def collect(self, now_s: float) -> dict[str, dict[str, Any]]:
        """Return what became of the results, by the names of their folders; empty while the program runs.

        One that several programs left no report of has a "problem".
        """
        if self._running is None or (self._running.exit_code is None and now_s < self._until_s):
            return {}
        self._running.kill()
        code, self._running, self.problem = self._running.exit_code, None, ""
        ended = {}
        for token in self._tokens:
            report = self._read_report(token)
            if (report is None and code == FULL) or (report and report.pop("wait", False)):
                self.tries.pop(token)
                discard(self.folders.signed / f"{token}.json")
                self.problem = str((report or {}).get("problem", f"a disk is full; {self.folders.logs}/sign.log"))
                continue
            if report is None and self.tries[token] < MOST_TRIES:
                continue
            ended[token] = report or {
                "problem": f"the program that signs ended with {code}; {self.folders.logs}/sign.log"
            }
            self.tries.pop(token)
        return ended

    def close(self) -> None:
        """End the program, if one runs; what it was to sign is signed after the next start."""
        if self._running is not None:
            self._running.kill()
            self._running = None

    def forget(self, token: str) -> None:
        """Delete what a program has left for a result, once the row of its job has it."""
        for suffix in ("json", "sha256"):
            discard(self.folders.signed / f"{token}.{suffix}")

    def discard_others(self, kept: Collection[str]) -> None:
        """Delete what ended programs have left for results that are not in the staging folder any more."""
        with suppress(OSError):
            for name in list_names(self.folders.signed):
                if name.partition(".")[0] not in kept:
                    discard(self.folders.signed / name)

    def _read_report(self, token: str) -> dict[str, Any] | None:
        path = self.folders.signed / f"{token}.json"
        try:
            report = json.loads(read_regular(path, MOST_REPORT_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        return report if isinstance(report, dict) else None
