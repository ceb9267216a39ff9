"""The daemon: files in, rows, files out. `Daemon.step` is the whole of it."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from agent import __version__
from agent.closing import Closing
from agent.devices import Devices
from agent.dispatch import Dispatch
from agent.errors import UserError
from agent.filesystem import sync_folder
from agent.intake import Intake, Orders
from agent.job import JobState
from agent.ledger import Job, Ledger
from agent.outbox import write_json
from agent.runs import Run
from agent.service import Lock, Notifier, Signals
from agent.settings import Settings
from gpu_pool.cards import CardWatch, Rules
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from models.catalog import choose

log = logging.getLogger("musedrop")

HANDLER = "models.handler:open_handler"
PROGRESS_S = 0.5
LONGEST_WAIT_S = 5.0
DRAIN_S = 60.0
FIRST_READING_S = 5.0


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


class Daemon:
    """Everything that happens between the inbox and the outbox of one share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        make_folders(settings)
        self.lock = Lock(settings.folders.lock)
        self.ledger = Ledger(settings.folders.ledger)
        self.ledger.devices.forget()
        self.pool = open_pool(settings)
        self.intake = Intake(settings, self.ledger, self.pool.wake)
        self.closing = Closing(settings, self.ledger)
        self.devices = Devices(self.ledger, self.pool)
        self.dispatcher = Dispatch(settings, self.ledger, self.devices, self._assembled)
        self.notifier = Notifier()
        self.draining = False
        self.next_save = self.next_status = 0.0
        self._reported: dict[str, Any] = {}
        at = milliseconds()
        self.closing.recover(at, time.monotonic())
        self.intake.readmit(at)
        log.info("musedrop %s: %s", __version__, self.engine_line())
        if self.intake.polls:
            log.info("the inbox is on %s: it is polled, nobody tells of changes there", self.intake.kind)

    def step(self, timeout_s: float = LONGEST_WAIT_S) -> None:
        """One turn: look, decide, wait for the workers or the inbox, book what happened."""
        now, at = time.monotonic(), milliseconds()
        self.take_in(now, at)
        self.dispatcher.expire(now, at)
        if not self.draining:
            self.dispatcher.dispatch(now, at)
        self.dispatcher.collect(min(timeout_s, self.wait_s(now)), time.monotonic, milliseconds)
        now, at = time.monotonic(), milliseconds()
        self.closing.publish(now, at)
        self.closing.tidy(at)
        self.report(now)

    def take_in(self, now: float, at: int) -> None:
        """Everything that starts at the inbox. An inbox that can't be read stops nothing else."""
        if not self.intake.scan_due(now) or not self.intake.scan(now):
            return
        try:
            self.intake.obey(at, Orders(self.cancel, self.devices.drain, self.devices.resume))
            self.intake.seek_waiting(at)
            if not self.draining:
                self.intake.admit(at)
            self.closing.sweep(at)
        except OSError as error:
            self.intake.inbox.problem = f"files can't be moved on the share: {error.strerror}"
            log.error("%s; tried again at the next scan", self.intake.inbox.problem)

    def cancel(self, job: Job, at: int) -> None:
        self.closing.unpublished.pop(job.uid, None)
        self.dispatcher.close_cancelled(job, at)

    def _assembled(self, run: Run, facts: dict[str, Any]) -> None:
        self.closing.assembled(run, facts, time.monotonic())

    def wait_s(self, now: float) -> float:
        """How long nothing is due."""
        due = [self.intake.next_scan, now + LONGEST_WAIT_S]
        if self.dispatcher.runs:
            due.append(max(self.next_save, now + 0.05))
        due += [when for _, _, when in self.closing.unpublished.values()]
        return max(0.0, min(due) - now)

    # telling ---------------------------------------------------------------------------------------------------------

    def report(self, now: float) -> None:
        """Progress into the ledger, status.json for those who can't read it, a line for systemd."""
        if now >= self.next_save:
            self.next_save = now + PROGRESS_S
            self.dispatcher.save_progress()
            self.dispatcher.explain()
        if now >= self.next_status:
            self.next_status = now + self.settings.status.write_s
            self.write_status()
            self.notifier.alive()

    def write_status(self, *, running: bool = True) -> None:
        status = self.status(running=running)
        if status == self._reported:
            return
        try:
            stamped = {"updated_at_ms": milliseconds(), **status}
            write_json(self.settings.folders.status_file, stamped, durable=False)
        except OSError as error:
            self.closing.problem = f"status.json can't be written: {error.strerror}"
            return
        self._reported = status
        self.notifier.status(self.status_line(status["counts"]))

    def status(self, *, running: bool) -> dict[str, Any]:
        """What status.json says; documented in docs/status-queries.md."""
        rows = self.ledger.rows
        return {
            "version": 1,
            "daemon": {"version": __version__, "pid": os.getpid(), "running": running, "draining": self.draining},
            "engine": self.engine_line(),
            "problems": [text for text in (self.intake.inbox.problem, self.closing.problem) if text],
            "counts": self.ledger.counts(),
            "running": rows("SELECT * FROM job_status WHERE state = 'running' ORDER BY priority DESC, created_at"),
            "queue": rows("SELECT * FROM queue ORDER BY position LIMIT 100"),
            "devices": rows("SELECT * FROM device_status ORDER BY device"),
            "recent": rows("SELECT * FROM job_status WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 20"),
        }

    def status_line(self, counts: dict[str, int]) -> str:
        words = [f"{counts[state]} {state}" for state in ("running", "queued", "waiting")]
        words += [f"{d.id} {d.state}" for d in self.pool.devices() if d.state in ("sick", "lost", "drained")]
        return ", ".join(words + (["draining"] if self.draining else []))

    def engine_line(self) -> str:
        choice = choose("auto", self.settings.models_dir, {device.kind for device in self.pool.devices()})
        return f"jobs with engine auto run on {choice.engine} ({choice.reason})"

    # life ------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; the first lets running spans finish, the second ends at once."""
        signals = Signals(self.pool.wake)
        self.notifier.ready()
        try:
            while not signals.asked:
                self.step()
            self.drain(signals)
        finally:
            signals.restore()
            self.close()

    def drain(self, signals: Signals) -> None:
        """Start nothing new; running spans finish and stay on disk for the next start."""
        self.draining = True
        self.notifier.stopping()
        log.info("stopping: waiting for the running spans")
        deadline = time.monotonic() + DRAIN_S
        while self.busy() and signals.asked < 2 and time.monotonic() < deadline:
            self.step(0.5)

    def busy(self) -> bool:
        return any(self.pool.running(run.task_id) for run in self.dispatcher.runs.values())

    def close(self) -> None:
        self.intake.watch.stop()
        self.pool.close()
        at = milliseconds()
        self.dispatcher.save_progress()
        for run in self.dispatcher.runs.values():
            self.closing.requeue(run.job, at, "the daemon was stopped")
        self.write_status(running=False)
        self.ledger.close()
        self.lock.release()
        log.info("stopped")

    @property
    def finished(self) -> bool:
        """Whether no job is waiting, queued or running, and all files have followed their rows."""
        counts = self.ledger.counts()
        live = sum(counts[state] for state in (JobState.WAITING, JobState.QUEUED, JobState.RUNNING))
        return live == 0 and not self.ledger.untidy()


def open_pool(settings: Settings) -> Pool:
    """Workers on all cards that the settings admit, now and later, and on the processor."""
    devices, patience = settings.devices, settings.pool
    watch = CardWatch(settings.folders.logs / "nvml.log")
    watch.await_first(FIRST_READING_S)
    backend = LocalBackend(
        cpu_devices(devices.workers(os.cpu_count() or 1)),
        handler=HANDLER,
        handler_options={"preload": "", "models_dir": str(settings.models_dir)},
        kind_options={"cuda": {"preload": preloaded(settings)}},
        log_dir=settings.folders.logs,
        watch=watch,
        rules=card_rules(settings),
    )
    return Pool(
        backend,
        stall_s=patience.stall_s,
        cancel_s=patience.cancel_s,
        recycle_spans=patience.recycle_spans,
        recycle_bytes=patience.recycle_mib << 20,
        reserve_bytes=devices.reserve_mib << 20,
    )


def card_rules(settings: Settings) -> Rules:
    """Which cards are used, and by how many workers each, as the pool takes it."""
    devices = settings.devices
    return Rules(devices.only, devices.exclude, devices.workers_per_device)


def preloaded(settings: Settings) -> str:
    """The engine that workers on cards load when they start, "" for none."""
    choice = choose("auto", settings.models_dir, {"cpu", "cuda"})
    return choice.engine if settings.devices.preload and choice.kind == "cuda" else ""


def make_folders(settings: Settings) -> None:
    """The share's own folders and the state's; the share itself must be there already."""
    if not settings.share.is_dir():
        raise UserError(
            f"the share {settings.share} does not exist: create it, mount it, or lay it out with `musedrop init`"
        )
    for folder in settings.folders.tree:
        folder.mkdir(parents=True, exist_ok=True)
    sync_folder(settings.share)
