"""A real share with a real daemon in a process of its own, for tests from outside."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import cv2

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "inbox_example"
SETTINGS = """
share = "share"
state = "state"

[inbox]
settle_s = {settle_s}
piece_settle_s = {settle_s}
scan_s = 0.5
wait_media_s = {wait_media_s}
keep_media_s = {keep_media_s}
watch = "{watch}"

[limits]
min_free_bytes = {min_free_bytes}

[devices]
cpu_workers = {workers}

[pool]
stall_s = {stall_s}
cancel_s = 5

[credentials]
sign = "{sign}"

[status]
write_s = {write_s}

[log]
format = "text"
"""


class Share:
    """Folders, settings and, between `start` and the end, a daemon."""

    def __init__(
        self,
        root: Path,
        *,
        workers: int = 2,
        settle_s: float = 0.2,
        wait_media_s: float = 60.0,
        keep_media_s: float = 0.0,
        min_free_bytes: int = 0,
        stall_s: float = 60.0,
        write_s: float = 0.2,
        watch: str = "auto",
        sign: str = "off",
        module: str = "agent.cli.main run",
        wrapper: Sequence[str] = (),
    ) -> None:
        """`wrapper`: a command that starts the daemon, such as setpriv with its options.

        `module`: what is started, "tests.e2e.noop" for a daemon that makes no pictures."""
        self.root = root
        self.config = root / "musedrop.toml"
        self.folder, self.state = root / "share", root / "state"
        self.inbox, self.outbox, self.failed = (self.folder / name for name in ("inbox", "outbox", "failed"))
        self.folder.mkdir(parents=True)
        self.module, self.wrapper = module, tuple(wrapper)
        values: dict[str, Any] = {
            "stall_s": stall_s,
            "settle_s": settle_s,
            "wait_media_s": wait_media_s,
            "keep_media_s": keep_media_s,
        }
        values |= {"write_s": write_s, "watch": watch, "sign": sign}
        self.config.write_text(SETTINGS.format(workers=workers, min_free_bytes=min_free_bytes, **values))
        self.daemon: subprocess.Popen[bytes] | None = None

    # the daemon ------------------------------------------------------------------------------------------------------

    def start(self, **env: str) -> None:
        """Launch the daemon and wait until it serves."""
        self.launch(**env)
        until(self.is_up, 60, self.log)

    def launch(self, **env: str) -> None:
        command = [*self.wrapper, sys.executable, "-m", *self.module.split(), "--config", str(self.config)]
        with (self.root / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log, env={**os.environ, **env})

    def launch_closed(self, **env: str) -> None:
        """Launch the daemon without any standard stream."""
        daemon = [*self.wrapper, sys.executable, "-m", *self.module.split(), "--config", str(self.config)]
        command = ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *daemon]
        self.daemon = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env})

    def is_up(self) -> bool:
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.daemon.returncode}:\n{self.log()}")
        status = self.status_file()
        return status["daemon"]["pid"] == self.daemon.pid if status else False

    def check_alive(self) -> None:
        """Fail the test with the log if the daemon has exited by itself."""
        if self.daemon is not None and self.daemon.poll() not in (None, 0, -signal.SIGKILL):
            raise AssertionError(f"the daemon ended with {self.daemon.returncode}:\n{self.log()}")

    def kill(self) -> None:
        """Send SIGKILL, and wait until the process is gone."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait(30)

    def stop(self) -> int:
        """Send SIGTERM. Return the exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(60)

    def end(self) -> None:
        if self.daemon is not None and self.daemon.poll() is None:
            self.kill()

    def log(self) -> str:
        path = self.root / "daemon.log"
        return path.read_text() if path.exists() else ""

    def musedrop(
        self, *words: str, env: dict[str, str] | None = None, timeout_s: float = 200
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with this share's settings."""
        command = [sys.executable, "-m", "agent.cli.main", *words, "--config", str(self.config)]
        wide = {**os.environ, "COLUMNS": "200", **(env or {})}
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, env=wide)

    # what people do --------------------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes) -> None:
        """Write a file as a careful program does: under a temporary name, then renamed."""
        self.inbox.mkdir(parents=True, exist_ok=True)
        beside = self.inbox / f".{name}.tmp"
        beside.write_bytes(data)
        beside.rename(self.inbox / name)

    def put_raw(self, name: str, data: bytes) -> None:
        """Write a file as a simple program does: under its own name."""
        self.inbox.mkdir(parents=True, exist_ok=True)
        (self.inbox / name).write_bytes(data)

    def drop(self, name: str, **job: Any) -> None:
        self.put(f"{name}.json", json.dumps(job).encode())

    # what people see -------------------------------------------------------------------------------------------------

    def rows(self, sql: str = "SELECT * FROM job_status ORDER BY created_at", *parameters: Any) -> list[dict[str, Any]]:
        self.check_alive()
        path = self.state / "jobs.db"
        if not path.exists():
            return []
        conn = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)
        conn.row_factory = sqlite3.Row
        try:
            if conn.execute("PRAGMA user_version").fetchone()[0] == 0:
                return []  # the daemon is just laying it out
            return [dict(row) for row in conn.execute(sql, parameters)]
        finally:
            conn.close()

    def job(self, name: str) -> dict[str, Any]:
        [row] = self.rows("SELECT * FROM job_status WHERE name = ? ORDER BY created_at DESC LIMIT 1", name)
        return row

    def status_file(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self.folder / "status.json").read_bytes()))
        except FileNotFoundError:
            return None

    def wait_for(self, name: str, *states: str, timeout_s: float = 200.0) -> dict[str, Any]:
        """Wait until the newest job of that name is in one of the states. Return its row."""
        until(
            lambda: any(
                row["state"] in states
                for row in self.rows(
                    "SELECT state FROM job_status WHERE name = ? ORDER BY created_at DESC LIMIT 1", name
                )
            ),
            timeout_s,
            lambda: f"{name} never was {states}: {self.rows()}\n{self.log()}",
        )
        return self.job(name)

    def wait_until_finished(self, jobs: int, timeout_s: float = 250.0) -> None:
        """Wait until there are so many jobs, all of them finished."""

        def finished() -> bool:
            rows = self.rows("SELECT count(*) AS all_jobs, count(finished_at) AS ended FROM job_status")
            return bool(rows) and rows[0] == {"all_jobs": jobs, "ended": jobs}

        until(finished, timeout_s, lambda: f"not {jobs} finished jobs: {self.rows()[-20:]}\n{self.log()[-20_000:]}")

    def result(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.outbox / name / "result.json").read_bytes()))

    def error(self, name: str) -> dict[str, Any]:
        """Return failed/NAME/error.json, which appears after the row."""
        path = self.failed / name / "error.json"
        until(path.exists, 60, self.log)
        return dict(json.loads(path.read_bytes()))

    def workers(self) -> list[int]:
        return [row["worker_pid"] for row in self.rows("SELECT worker_pid FROM device_status") if row["worker_pid"]]


def until(condition: Callable[[], bool], timeout_s: float, why: Callable[[], str], pause_s: float = 0.02) -> None:
    """Poll until the condition holds: other processes send no event to wait for."""
    deadline = time.monotonic() + timeout_s
    pause = Event()
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {why()}")
        pause.wait(pause_s)


def alive(pid: int) -> bool:
    """Whether the process still runs; a zombie doesn't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def are_gone(pids: Sequence[int]) -> bool:
    """Whether none of the processes runs."""
    return not any(map(alive, pids))


# small real media ----------------------------------------------------------------------------------------------------


def voice(seconds: float = 1.0) -> bytes:
    """Return the beginning of the example's speech as a WAV file."""
    with wave.open(str(EXAMPLES / "speech.wav")) as source:
        frames = source.readframes(round(seconds * source.getframerate()))
        params = source.getparams()
    made = io.BytesIO()
    with wave.open(made, "wb") as target:
        target.setparams(params)
        target.writeframes(frames)
    return made.getvalue()


def face(height: int = 256) -> bytes:
    """Return the example's portrait, small, as a JPEG file."""
    picture = cv2.imread(str(EXAMPLES / "collins.jpg"))
    assert picture is not None
    small = cv2.resize(picture, (round(picture.shape[1] * height / picture.shape[0]), height))
    return bytes(cv2.imencode(".jpg", small)[1])
