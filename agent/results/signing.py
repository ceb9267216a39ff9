"""Have verified results signed by a program of its own, which alone opens the private key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from agent import __version__
from agent.credentials import KEY
from agent.credentials.manifest import make_manifest
from agent.fs import discard, is_file, read_regular
from agent.fs.folders import make_folder
from agent.settings import CurrentSettings, Folders
from gpu_pool.process import Program

MOST_AT_ONCE, MOST_BYTES = 16, 60_000
"""Results that one program signs; what it reads is less than a pipe holds."""
MOST_TRIES, PROGRAM_S, POLL_S = 3, 600.0, 0.02
MOST_REPORT_BYTES = 1 << 16


class RunningProgram(Protocol):
    @property
    def exit_code(self) -> int | None: ...

    def kill(self) -> None: ...


Start = Callable[[Folders, Sequence[str], bytes], RunningProgram]
"""Starts the program with arguments and its standard input. Raises OSError."""


def start_program(folders: Folders, args: Sequence[str], stdin: bytes) -> RunningProgram:
    return Program("agent.credentials.sign", args, stdin, folders.logs / "sign.log")


def can_sign() -> bool:
    """Whether the extra `credentials` is installed."""
    return all(find_spec(name) is not None for name in ("c2pa", "cryptography"))


@dataclass(slots=True)
class Signer:
    """Signs staged results, several in one program. `start` takes the place of the real program in tests.

    tries   how often a result was given to a program that left no report of it
    """

    settings: CurrentSettings
    folders: Folders
    start: Start = start_program
    tries: dict[str, int] = field(default_factory=dict)
    _running: RunningProgram | None = None
    _tokens: tuple[str, ...] = ()
    _until_s: float = 0.0

    @property
    def is_on(self) -> bool:
        return self.settings.current.credentials.sign == "auto" and can_sign()

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
        """Start signing results, each a staging folder with its record, as many as one program takes."""
        names, jobs = self.settings.current.credentials.names, list[dict[str, Any]]()
        for folder, record in islice(staged, MOST_AT_ONCE):
            manifest = make_manifest(record, __version__, names=names)
            jobs.append({"token": folder.name, "folder": str(folder), "video": record["video"], "manifest": manifest})
            if len(json.dumps(jobs)) > MOST_BYTES and len(jobs) > 1:
                jobs.pop()
                break
        make_folder(self.folders.credentials, 0o700)
        make_folder(self.folders.signed, 0o700)
        walls = ["--walls"] if self.settings.current.pool.walls else []
        args = ["--keys", str(self.folders.credentials), "--reports", str(self.folders.signed), *walls]
        self._tokens = tuple(job["token"] for job in jobs)
        for token in self._tokens:
            self.tries[token] = self.tries.get(token, 0) + 1
        self._running, self._until_s = self.start(self.folders, args, json.dumps(jobs).encode()), now_s + PROGRAM_S

    def collect(self, now_s: float) -> dict[str, dict[str, Any]]:
        """Return what became of the results, by the names of their folders; empty while the program runs.

        One that several programs left no report of has a "problem".
        """
        if self._running is None or (self._running.exit_code is None and now_s < self._until_s):
            return {}
        self._running.kill()
        code, self._running = self._running.exit_code, None
        ended = {}
        for token in self._tokens:
            report = self._read_report(token)
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

    def _read_report(self, token: str) -> dict[str, Any] | None:
        path = self.folders.signed / f"{token}.json"
        try:
            report = json.loads(read_regular(path, MOST_REPORT_BYTES))
        except (OSError, ValueError):
            return None
        discard(path)
        discard(path.with_suffix(".sha256"))
        return report if isinstance(report, dict) else None
