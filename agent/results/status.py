"""status.json on the share, and the line that `systemctl status` shows."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent import __version__
from agent.fs import atomic_write_bytes, take_fingerprint
from agent.ledger.ledger import Ledger
from agent.results.records import format_json
from agent.scheduler.dispatcher import Dispatcher
from agent.service.problems import Problems
from agent.service.systemd import Notifier
from agent.settings import Folders

OUT_OF_SERVICE = ("sick", "lost", "drained")


@dataclass(frozen=True, slots=True)
class DaemonState:
    """What the daemon says of itself."""

    running: bool = True
    draining: bool = False
    paused: bool = False


class StatusReport:
    """Collects the status from the ledger and the dispatcher, and writes it when it has changed."""

    def __init__(
        self,
        folders: Folders,
        ledger: Ledger,
        dispatcher: Dispatcher,
        problems: Problems,
        notifier: Notifier,
        list_ignored: Callable[[], list[dict[str, str]]] = list,
    ) -> None:
        self.folders, self.ledger, self.dispatcher = folders, ledger, dispatcher
        self.problems, self.notifier, self.clock = problems, notifier, dispatcher.clock
        self._list_ignored = list_ignored
        self._last: dict[str, Any] = {}
        self._bytes = -1

    def write(self, state: DaemonState, *, on_share: bool) -> None:
        """Tell systemd, and the share if it is there, what has changed."""
        status = self.collect(state)
        if status != self._last:
            self.notifier.send_status(self.make_line(state, status["counts"]))
        if not on_share or (status == self._last and self._is_in_place()):
            return
        data = format_json({"updated_at_ms": self.clock.at_ms(), **status}, indent=None)
        try:
            atomic_write_bytes(self.folders.status_file, data, durable=False)
        except OSError as error:
            self.problems.set("status", f"status.json can't be written: {error.strerror}")
            return
        self.problems.set("status", "")
        self._last, self._bytes = status, len(data)

    def _is_in_place(self) -> bool:
        """Whether nobody has removed the file, or put a link or another file there."""
        found = take_fingerprint(self.folders.status_file)
        return found is not None and found.size == self._bytes

    def collect(self, state: DaemonState) -> dict[str, Any]:
        """Return what status.json says; documented in docs/status-queries.md."""
        rows, now_s = self.ledger.rows, self.clock.now_s()
        eta_s = {uid: attempt.eta_s(now_s) for uid, attempt in self.dispatcher.attempts.items()}
        running = rows("SELECT * FROM job_status WHERE state = 'running' ORDER BY priority DESC, created_at")
        daemon = {"version": __version__, "pid": os.getpid(), "running": state.running, "draining": state.draining}
        return {
            "version": 1,
            "daemon": daemon,
            "engine": self.describe_engine(),
            "paused": state.paused,
            "problems": self.problems.texts,
            "ignored": self._list_ignored(),
            "counts": self.ledger.counts(),
            "running": [{**row, "eta_s": eta_s.get(row["uid"])} for row in running],
            "queue": self.ledger.queue.list_first(self.clock.at_ms(), 100),
            "devices": rows("SELECT * FROM device_status ORDER BY device"),
            "recent": rows("SELECT * FROM job_status WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 20"),
        }

    def make_line(self, state: DaemonState, counts: dict[str, int]) -> str:
        """Return the status as one line."""
        words = [f"{counts[name]} {name}" for name in ("running", "queued", "waiting")]
        devices = self.dispatcher.pool.devices()
        words += [f"{device.id} {device.state}" for device in devices if device.state in OUT_OF_SERVICE]
        words += ["paused"] if state.paused else []
        words += ["draining"] if state.draining else []
        return ", ".join([*words, *self.problems.texts])

    def describe_engine(self) -> str:
        """Return which engine jobs with `auto` run on, and why."""
        held, why = self.dispatcher.find_held()
        if "auto" in held:
            return f"jobs with engine auto wait: {why}"
        kinds = {device.kind for device in self.dispatcher.pool.devices()}
        choice = self.dispatcher.choose_engine("auto", kinds)
        if choice.kind == "cpu":
            return f"no GPU engine can run here: jobs with engine auto run on {choice.engine} (see `musedrop doctor`)"
        return f"jobs with engine auto run on {choice.engine} ({choice.reason})"
