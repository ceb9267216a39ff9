"""The daemon: files in, rows, files out. `Daemon.step` is the whole of it."""

from __future__ import annotations

import faulthandler
import logging
import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agent import __version__
from agent.fs import is_file
from agent.intake.admission import Intake
from agent.intake.commands import CancelJob, Command, DrainDevice, ResumeDevice
from agent.jobs.states import JobState
from agent.ledger.disk_full import DiskFull, raise_disk_full
from agent.ledger.job import Job
from agent.ledger.ledger import Ledger
from agent.results.outbox import write_json
from agent.results.publisher import GATHER_S, Closing
from agent.results.retention import Retention
from agent.results.status_db import Snapshots
from agent.scheduler.attempt import Run
from agent.scheduler.devices import Devices
from agent.scheduler.dispatcher import Dispatch
from agent.scheduler.workers import open_pool
from agent.service.disk_space import low_space
from agent.service.liveness import COMMIT_S, Signs, illness
from agent.service.log import configure_logging
from agent.service.problems import Troubles
from agent.service.process import Drain, InstanceLock, Signals
from agent.service.reload import merged
from agent.service.share import Anchor
from agent.service.systemd import Notifier, Watchdog
from agent.settings import Settings
from agent.settings_file import BadSettings, load_settings
from gpu_pool.failpoints import failpoint
from gpu_pool.process import log_path
from models.catalog import choose_engine

log = logging.getLogger("musedrop")

HANDLER = "models.handler:open_handler"
PROGRESS_S = 0.5
LONGEST_WAIT_S = 5.0
DRAIN_MARGIN_S = 30.0
"""What systemd gives a drain beyond the time in which a silent worker is ended."""
FULL_DISK_S = 1.0
OWNER_ONLY = 0o700
BEAT = "beat_ms"
TIDY_S = 0.5


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


class Daemon:
    """Everything that happens between the inbox and the outbox of one share."""

    def __init__(self, settings: Settings, handler: str = HANDLER) -> None:
        self.settings = settings
        make_folders(settings.folders.of_state, OWNER_ONLY)
        self.lock = InstanceLock(settings.folders.lock)
        with ExitStack() as otherwise, raise_disk_full():
            otherwise.callback(self.lock.release)
            self.ledger = Ledger(settings.folders.ledger)
            self.ledger.devices.forget()
            otherwise.pop_all()
        self.troubles = Troubles()
        self.anchor = Anchor(settings, self.ledger)
        self.pool = open_pool(settings, handler)
        self.intake = Intake(settings, self.ledger, self.pool.wake)
        self.closing = Closing(settings, self.ledger, self.troubles)
        self.devices = Devices(self.ledger, self.pool)
        self.dispatcher = Dispatch(settings, self.ledger, self.devices, self)
        self.retention = Retention(settings, self.ledger, self.troubles, self.open_logs)
        self.snapshots = Snapshots(settings, self.ledger, self.troubles)
        self.notifier = Notifier()
        self.watchdog = Watchdog(self.notifier)
        self.draining = self.arrived = self.share_is_here = self.untidy = self.pruning = False
        self.next_save = self.next_status = self.next_tidy = self.committed_at = 0.0
        self.notice = ""
        self._reported: dict[str, Any] = {}
        log.info("musedrop %s: %s", __version__, self.engine_line())

    def step(self, timeout_s: float = LONGEST_WAIT_S) -> None:
        """One turn: look, decide, wait for the workers or the inbox, book what happened."""
        now, at = time.monotonic(), milliseconds()
        self.take_in(now, at)
        self.dispatcher.expire(now, at)
        self.dispatcher.rest = self.draining or not self.share_is_here
        self.dispatcher.dispatch(now, at)
        heard = self.dispatcher.collect(min(timeout_s, self.wait_s(now)), time.monotonic, milliseconds)
        self.untidy |= heard or bool(self.closing.unpublished)
        now, at = time.monotonic(), milliseconds()
        if self.share_is_here:
            self.closing.publish(now, at)
            self.tidy(now, at)
            self.pruning = not self.draining and self.retention.step(now, at)
        self.report(now)

    def tidy(self, now: float, at: int) -> None:
        """Let files follow jobs that may have ended, now and then while there is more to do than that."""
        if self.untidy and now >= self.next_tidy:
            self.next_tidy = now + TIDY_S
            self.untidy = self.closing.tidy(at)

    def take_in(self, now: float, at: int) -> None:
        """Everything that starts at the inbox. A share that is away, or can't be read, stops nothing else."""
        if not self.intake.is_scan_due(now):
            return
        self.untidy = True
        self.look_at_share(now, at)
        if not self.share_is_here or not self.intake.scan(now):
            self.troubles.tell("inbox", self.intake.inbox.problem)
            return
        self.troubles.tell("watch", self.intake.watcher.problem)
        try:
            if self.troubles["inbox"]:
                self.intake.recover_claims(at)
            for command in self.intake.run_controls(at):
                self.execute(command, at)
            self.intake.check_waiting_jobs(at)
            if not self.draining:
                self.intake.claim_new(at)
            self.closing.sweep(at)
        except OSError as error:
            self.troubles.tell("inbox", f"files can't be moved on the share: {error.strerror}")
        else:
            self.troubles.tell("inbox", "")
        self.hold_queue()

    def look_at_share(self, now: float, at: int) -> None:
        """Before every scan: the share may have gone, or come back."""
        problem = self.anchor.problem()
        if not problem and not self.share_is_here:
            problem = self.meet_share(now, at)
        self.troubles.tell("share", problem)
        self.share_is_here = not problem
        if problem:
            self.intake.postpone_scan(now)

    def share_is_there_still(self) -> bool:
        """It may have gone since the last scan, and nothing must be written into the empty folder below a mount."""
        return self.share_is_here and is_file(self.settings.folders.share_id_file)

    def meet_share(self, now: float, at: int) -> str:
        """Make the folders that are missing; the first time, mend what a crash left. Returns what is wrong."""
        try:
            make_folders(self.settings.folders.of_share)
        except OSError as error:
            return f"the folders of the share can't be made: {error.strerror}"
        self.intake.meet_share()
        if not self.arrived:
            self.arrived = True
            self.closing.recover(at, now)
            self.intake.recover_claims(at)
        return ""

    def hold_queue(self) -> None:
        """Start no further job while the queue is paused or a disk is nearly full; say so of every queued one."""
        low = low_space(self.settings)
        self.troubles.tell("disk", low)
        hold = "the queue is paused" if self.intake.is_paused else low
        if hold != self.dispatcher.hold:
            self.dispatcher.hold = hold
            self.dispatcher.explain()

    def execute(self, command: Command, at: int) -> None:
        match command:
            case CancelJob(job):
                self.closing.withhold(job.uid)
                self.dispatcher.close_cancelled(job, at)
            case DrainDevice(name):
                if not self.devices.drain(name, at):
                    log.warning("nothing to drain: no device is called %s", name)
            case ResumeDevice(name):
                if not self.devices.resume(name, at):
                    log.warning("nothing to resume: no device is called %s", name)

    def assembled(self, run: Run, facts: dict[str, Any]) -> None:
        failpoint("assembled")
        gather_s = GATHER_S if self.dispatcher.runs else 0.0
        self.closing.assembled(run, facts, time.monotonic() + gather_s)

    def repeat(self, run: Run, earlier: Job) -> bool:
        return self.closing.repeat(run, earlier, time.monotonic())

    def wait_s(self, now: float) -> float:
        """How long nothing is due."""
        if self.pruning:
            return 0.0
        due = [self.intake.next_scan_s, now + LONGEST_WAIT_S, self.watchdog.due_s]
        if self.untidy and self.share_is_here:
            due.append(self.next_tidy)
        if self.dispatcher.runs or self.devices.unsaved:
            due.append(max(self.next_save, now + 0.05))
        if self.share_is_here:
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
            if self.share_is_there_still():
                self.snapshots.keep_up(now)
        self.prove(now)
        self.watchdog.feed(now, illness(self.signs(), now))

    def prove(self, now: float) -> None:
        """While jobs run, commit something now and then even where no frames come: a ledger that hangs shows."""
        if self.dispatcher.runs and now >= self.committed_at + COMMIT_S:
            self.ledger.remember(BEAT, str(milliseconds()))
            self.committed_at = now

    def signs(self) -> Signs:
        intake, runs = self.intake, self.dispatcher.runs
        observed = not self.share_is_here or intake.polls or intake.watcher.is_alive or bool(intake.watcher.problem)
        period_s = max(self.settings.inbox.scan_s, LONGEST_WAIT_S)
        return Signs(intake.last_scan_s, period_s, observed, self.committed_at, not runs)

    def write_status(self, *, running: bool = True) -> None:
        status = self.status(running=running)
        if status == self._reported:
            return
        self.notifier.send_status(self.status_line(status["counts"]))
        if not self.share_is_there_still():
            return
        try:
            stamped = {"updated_at_ms": milliseconds(), **status}
            write_json(self.settings.folders.status_file, stamped, durable=False)
        except OSError as error:
            self.troubles.tell("status", f"status.json can't be written: {error.strerror}")
            return
        self.troubles.tell("status", "")
        self._reported = status

    def status(self, *, running: bool) -> dict[str, Any]:
        """What status.json says; documented in docs/status-queries.md."""
        rows, now = self.ledger.rows, time.monotonic()
        left = {run.job.uid: run.eta_s(now) for run in self.dispatcher.runs.values()}
        working = rows("SELECT * FROM job_status WHERE state = 'running' ORDER BY priority DESC, created_at")
        return {
            "version": 1,
            "daemon": {"version": __version__, "pid": os.getpid(), "running": running, "draining": self.draining},
            "engine": self.engine_line(),
            "paused": self.intake.is_paused,
            "problems": self.problems(),
            "counts": self.ledger.counts(),
            "running": [{**row, "eta_s": left.get(row["uid"])} for row in working],
            "queue": rows("SELECT * FROM queue ORDER BY position LIMIT 100"),
            "devices": rows("SELECT * FROM device_status ORDER BY device"),
            "recent": rows("SELECT * FROM job_status WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 20"),
        }

    def status_line(self, counts: dict[str, int]) -> str:
        words = [f"{counts[state]} {state}" for state in ("running", "queued", "waiting")]
        words += [f"{d.id} {d.state}" for d in self.pool.devices() if d.state in ("sick", "lost", "drained")]
        words += ["paused"] if self.intake.is_paused else []
        words += ["draining"] if self.draining else []
        return ", ".join([*words, *self.problems()])

    def problems(self) -> list[str]:
        return [*self.troubles.texts(), *([self.notice] if self.notice else [])]

    def open_logs(self) -> set[Path]:
        folders = self.settings.folders
        return {folders.nvml_log, *(log_path(folders.logs, device.id) for device in self.pool.devices())}

    def engine_line(self) -> str:
        choice = choose_engine("auto", self.settings.models_dir, {device.kind for device in self.pool.devices()})
        return f"jobs with engine auto run on {choice.engine} ({choice.reason})"

    # life ------------------------------------------------------------------------------------------------------------

    def run(self, source: Path | None = None) -> bool:
        """Serve until SIGTERM or SIGINT; the first lets running spans finish, the second ends at once. SIGHUP reads
        the settings again from `source`.

        True if the state's disk filled up: then another daemon has to go on, as after a crash.
        """
        signals, full = Signals(self.pool.wake), False
        try:
            with raise_disk_full():
                self.step(0.0)
                self.notifier.send_ready()
                while not signals.stop_requests:
                    if signals.take_reload() and source is not None:
                        self.reload(source)
                    self.step()
                self.drain(signals)
        except DiskFull as error:
            full = True
            log.error("the state folder %s can't be written (%s): jobs wait", self.settings.state, error)
        finally:
            signals.restore()
            self.abandon() if full else self.close()
        return full

    def drain(self, signals: Signals) -> None:
        """Start nothing new; running spans finish and stay on disk for the next start."""
        self.draining = True
        failpoint("draining")
        self.notifier.send_stopping()
        log.info("stopping: waiting for the running spans")
        drain = Drain(time.monotonic(), self.settings.pool.drain_s)
        while self.busy() and signals.stop_requests < 2 and not drain.is_over(time.monotonic()):
            if drain.note_progress(sum(run.units_done for run in self.dispatcher.runs.values())):
                self.notifier.extend_timeout(self.settings.pool.stall_s + DRAIN_MARGIN_S)
            self.step(0.5)
        if self.share_is_here and signals.stop_requests < 2:
            self.closing.publish(time.monotonic() + GATHER_S, milliseconds())
            self.closing.tidy(milliseconds())
        if self.busy():
            log.warning("stopping: the running spans are interrupted, they are done again after the next start")

    def reload(self, source: Path) -> None:
        """Take over the settings that can change while the daemon runs, and name those that can't."""
        self.notifier.send_reloading()
        try:
            settings, taken, kept = merged(self.settings, load_settings(source))
        except BadSettings as bad:
            self.notice = f"the settings are as before, the file can't be used: {bad}"
        else:
            self.adopt(settings)
            log.info("settings taken over: %s", ", ".join(taken) or "none had changed")
            self.notice = f"a restart is needed for {', '.join(kept)}" if kept else ""
        if self.notice:
            log.warning("%s", self.notice)
        self.next_status = 0.0
        self.notifier.send_ready()

    def adopt(self, settings: Settings) -> None:
        self.settings = self.closing.settings = self.dispatcher.settings = self.snapshots.settings = settings
        self.intake.adopt(settings)
        self.share_is_here = False  # it is met anew at the next scan, which is due now
        configure_logging(settings)

    def busy(self) -> bool:
        return any(self.pool.running_spans(run.task_id) for run in self.dispatcher.runs.values())

    def close(self) -> None:
        self.intake.watcher.stop()
        self.pool.close()
        at = milliseconds()
        self.dispatcher.save_progress()
        for run in self.dispatcher.runs.values():
            self.closing.requeue(run.job, at, "the daemon was stopped")
        self.write_status(running=False)
        if self.share_is_there_still():
            self.snapshots.finish()
        self.ledger.close()
        self.lock.release()
        log.info("stopped")

    def abandon(self) -> None:
        """Let go of everything and write nothing: what is on disk is enough to begin again."""
        self.intake.watcher.stop()
        self.pool.close()
        self.ledger.close()
        self.lock.release()

    @property
    def finished(self) -> bool:
        """Whether no job is waiting, queued or running, and all files have followed their rows."""
        counts = self.ledger.counts()
        live = sum(counts[state] for state in (JobState.WAITING, JobState.QUEUED, JobState.RUNNING))
        return live == 0 and not self.ledger.untidy(1)


def make_folders(folders: Iterable[Path], mode: int = 0o777) -> None:
    for folder in folders:
        folder.mkdir(mode, parents=True, exist_ok=True)


def serve(settings: Settings, handler: str = HANDLER, source: Path | None = None) -> None:
    """Run a daemon; where the state's disk filled up, another one as soon as there is room.

    `source`: the file that SIGHUP reads again.
    """
    faulthandler.enable()  # a daemon that the watchdog aborts says where it hung
    notifier = Notifier()
    while True:
        try:
            with raise_disk_full():
                daemon = Daemon(settings, handler)
                if not daemon.run(source):
                    return
                settings = daemon.settings
        except DiskFull as full:
            log.error("the state folder %s can't be written (%s)", settings.state, full)
        while True:
            notifier.send_alive()
            notifier.extend_timeout(DRAIN_MARGIN_S)
            time.sleep(FULL_DISK_S)
            if not (low := low_space(settings)):
                break
            notifier.send_status(low)
