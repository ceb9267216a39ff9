"""The daemon: files in, rows, files out. `Daemon.step` is one turn of its loop."""

from __future__ import annotations

import faulthandler
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from agent import __version__
from agent.clock import Clock
from agent.fs import is_file
from agent.fs.folders import keep_folders_open, make_folders
from agent.intake.admission import Intake
from agent.intake.controls.commands import CancelJob, Command, DrainDevice, ResumeDevice, TrustClock, UnloadDevice
from agent.jobs.states import LIVE
from agent.ledger.damage import DamageCheck
from agent.ledger.disk_full import DiskFull, raise_disk_full
from agent.ledger.ledger import Ledger
from agent.ledger.places import Places
from agent.ledger.reader import LedgerError, name_damage
from agent.ledger.snapshot import remove_leftovers
from agent.results.archive import Archiver
from agent.results.drafts import Drafts
from agent.results.first_part import FirstParts
from agent.results.publisher import GATHER_S, Publisher
from agent.results.reconcile import reconcile
from agent.results.retention import Retention
from agent.results.signing import Signer
from agent.results.status import DaemonState, StatusReport
from agent.results.status_db import StatusDatabase
from agent.scheduler.attempt import FinishedAttempt
from agent.scheduler.devices import Devices
from agent.scheduler.dispatcher import Dispatcher
from agent.scheduler.handlers import HANDLER
from agent.scheduler.workers import list_open_logs, open_pool
from agent.selftest.background import BackgroundTests
from agent.service.clock_history import ClockHistory
from agent.service.disk_space import await_room, find_low_disk
from agent.service.entry_problems import EntryProblems
from agent.service.liveness import Heartbeat, LoopStatus, liveness_error
from agent.service.log import configure_logging
from agent.service.problems import Problems
from agent.service.process import Drain, InstanceLock, Signals, let_group_read
from agent.service.reload import merge_settings
from agent.service.share import ShareIdentity
from agent.service.share_folders import PRIVATE, ShareFolders
from agent.service.share_lease import ShareLease, ShareTaken
from agent.service.systemd import Notifier, Watchdog
from agent.settings import CurrentSettings, Settings
from agent.settings_file import BadSettings, load_settings
from gpu_pool.failpoints import failpoint
from gpu_pool.pool import Pool
from gpu_pool.types import PoolEvent
from gpu_pool.walls.privileges import forbid_tracing, keep_privileges_here

log = logging.getLogger("musedrop")

PROGRESS_S = 0.5
ARCHIVE_S = 0.5
MAX_WAIT_S = 5.0
DRAIN_MARGIN_S = 30.0
"""What systemd allows a drain beyond the time after which a silent worker is ended."""


class Daemon:
    """Everything that happens between the inbox and the outbox of one share."""

    def __init__(
        self,
        settings: Settings,
        handler: str = HANDLER,
        *,
        pool: Pool | None = None,
        clock: Clock | None = None,
        notifier: Notifier | None = None,
        signs: bool = False,
    ) -> None:
        """`pool`, `clock` and `notifier` take the place of the real ones in tests. `signs`: results, see Signer."""
        self.settings, self.folders = CurrentSettings(settings), settings.folders
        make_folders(self.folders.of_state, PRIVATE)
        self.lock = InstanceLock(self.folders.lock)
        with ExitStack() as on_error, raise_disk_full(), name_damage(self.folders.ledger):
            on_error.callback(self.lock.release)
            remove_leftovers(self.folders.state)
            self.ledger = Ledger(self.folders.ledger, Places(self.folders.share, self.folders.state, self.list_roots))
            on_error.callback(self.ledger.close)
            self.damage_check = DamageCheck(self.folders.ledger, self.folders.running_mark)
            earlier = self.ledger.devices.list_cards()
            self.ledger.devices.clear()
            self.share = ShareIdentity(settings.share, self.folders.share_id_file, self.ledger)
            self.share_folders = ShareFolders(self.folders)
            if not self.share.check():
                with suppress(OSError):  # `open_share` says it
                    self.share_folders.make()  # workers may open only what there is when they start
            on_error.pop_all()
        self.clock, self.problems = clock or Clock(), Problems()
        self.notifier = notifier or Notifier()
        self.watchdog = Watchdog(self.notifier)
        self.pool = pool or open_pool(self.settings, handler, earlier)
        self.lease = ShareLease(settings.share, self.folders.lease, self.folders.state, self.ledger, self.clock)
        self.signer = Signer(self.settings, self.folders) if signs else None
        self._connect_parts()
        self.draining = self.share_present = False
        self._recovered = self._may_archive = self._pruning = False
        self._next_save_s = self._next_status_s = self._next_archive_s = 0.0
        log.info("musedrop %s: %s", __version__, self.status.describe_engine())

    def list_roots(self) -> list[Path]:
        """Return the folders beside share and state that jobs may read, in the order of the settings."""
        inbox = self.settings.current.inbox
        return [*inbox.media_roots, *inbox.path_map.values()]

    def _connect_parts(self) -> None:
        """Make the parts of the daemon; each knows only what is below it, and data goes up through `step`."""
        settings, ledger, problems, clock = self.settings, self.ledger, self.problems, self.clock
        self.entries = EntryProblems(self.folders.share, clock.now_s)
        problems.add_source(lambda: self.entries.texts)
        self.history = ClockHistory(ledger, clock)
        self.intake = Intake(settings, ledger, self.pool.wake, self.entries, self.history)
        problems.add_source(lambda: self.intake.ignored.texts)
        self.devices = Devices(ledger, self.pool, clock)
        self.dispatcher = Dispatcher(settings, ledger, self.devices, clock)
        self.publisher = Publisher(
            self.folders,
            ledger,
            problems,
            clock,
            lambda: settings.current.output.link_video,
            lambda: settings.current.quality,
            self.signer,
        )
        self.first_parts = FirstParts(self.folders, ledger)
        self.archiver = Archiver(settings, ledger, problems, clock, self.entries, self.history)
        list_logs = partial(list_open_logs, self.folders, self.pool)
        self.retention = Retention(settings.current, ledger, problems, clock, list_logs)
        self.drafts = Drafts(self.folders, ledger, clock)
        self.status = StatusReport(
            self.folders, ledger, self.dispatcher, problems, self.notifier, self.intake.ignored.list_rows
        )
        self.status_db = StatusDatabase(settings, ledger, problems, clock)
        self.selftests = BackgroundTests(settings, ledger, self.devices, clock)
        self.heartbeat = Heartbeat(ledger, clock)
        self.dispatcher.bound_pauses()

    # the loop --------------------------------------------------------------------------------------------------------

    def step(self, timeout_s: float = MAX_WAIT_S) -> None:
        """One turn: read the inbox, start spans, wait for the workers or the inbox, write what happened."""
        with keep_folders_open():
            self.lock.note_alive(self.clock.now_s())
            self.follow_clock()
            self.damage_check.raise_found()
            self.keep_lease()
            is_read = self.read_inbox()
            self.dispatcher.set_paused(paused=self.draining or not self.share_present)
            with self.ledger.together():
                if is_read:
                    self.take_in()
                self.dispatcher.fail_overdue()
                self.dispatcher.assign()
            self.dispatcher.release()
            for node, trouble in self.pool.node_troubles.items():
                self.problems.set(f"node {node}", trouble)
            self.selftests.step(is_busy=self.draining or bool(self.dispatcher.attempts))
        events = self.dispatcher.wait(min(timeout_s, self.idle_s()))
        with keep_folders_open():
            self.collect_results(events)
            self.keep_lease()
            self.publish_results()
            self.archive_inputs()
            self.delete_old_files()
            self.save_progress()
            self.report_status()
            self.heartbeat.write(busy=bool(self.dispatcher.attempts))
            self.feed_watchdog()

    def follow_clock(self) -> None:
        """Keep what jobs have waited when the calendar was set."""
        if jump_ms := self.history.take_jump():
            log.warning("the clock was set by %+.0f s: what jobs have waited still counts", jump_ms / 1000)
            self.dispatcher.move_times(jump_ms)

    def idle_s(self) -> float:
        """Return for how long nothing is due."""
        if self._pruning:
            return 0.0
        now_s = self.clock.now_s()
        due_s = [self.intake.next_scan_s, now_s + MAX_WAIT_S, self.watchdog.due_s]
        if self._may_archive and self.share_present:
            due_s.append(self._next_archive_s)
        if self.dispatcher.attempts or self.devices.has_unsaved:
            due_s.append(max(self._next_save_s, now_s + 0.05))
        if self.share_present:
            due_s.append(self.publisher.next_due_s)
        return max(0.0, min(due_s) - now_s)

    # in --------------------------------------------------------------------------------------------------------------

    def read_inbox(self) -> bool:
        """Scan the inbox if that is due, and run its control files; return whether files may be taken from it.

        A share that is away, or can't be read, stops nothing else.
        """
        now_s = self.clock.now_s()
        if not self.intake.is_scan_due(now_s):
            return False
        self._may_archive = True
        self.check_share()
        if not self.share_present or not self.intake.scan(now_s):
            self.problems.set("inbox", self.intake.inbox.problem)
            return False
        self.problems.set("watch", self.intake.watcher.problem)
        with self.note_share_error():
            if self.problems["inbox"] or self.intake.may_have_unsettled:
                self.intake.recover_claims(self.clock.at_ms())
            for command in self.intake.run_controls(self.clock.at_ms()):
                self.execute(command)
            return True
        return False

    def take_in(self) -> None:
        """Look for media, and claim new jobs, in a transaction of the caller."""
        at_ms = self.clock.at_ms()
        with self.note_share_error():
            self.intake.check_waiting_jobs(at_ms)
            if not self.draining:
                self.intake.claim_new(at_ms)
                self.intake.refuse_others(at_ms)
            self.archiver.collect_media()
            self.problems.set("inbox", "")
        self.hold_queue()

    @contextmanager
    def note_share_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problems.set("inbox", f"files can't be moved on the share: {error.strerror}")

    def execute(self, command: Command) -> None:
        """Do what a control file asks for."""
        match command:
            case CancelJob(job):
                self.publisher.discard(job.uid)
                self.dispatcher.cancel(job)
            case TrustClock():
                self.retention.trust_clock()
            case DrainDevice(name):
                if not self.devices.drain(name):
                    log.warning("nothing to drain: no device is called %s", name)
            case UnloadDevice(name):
                if not self.devices.unload(name):
                    log.warning("nothing to unload: no idle device called %s has loaded a model", name)
            case ResumeDevice(name):
                self.selftests.dismiss(name)
                if not self.devices.resume(name):
                    log.warning("nothing to resume: no device is called %s", name)

    def hold_queue(self) -> None:
        """Start no further job while the queue is paused or a disk is nearly full."""
        low_disk = find_low_disk(self.settings.current)
        self.problems.set("disk", low_disk)
        self.problems.set("driver", self.dispatcher.find_held()[1].rstrip("."))
        self.problems.set("jobs", self.dispatcher.disk_fault)
        self.dispatcher.hold("the queue is paused" if self.intake.is_paused else low_disk)

    # the share -------------------------------------------------------------------------------------------------------

    def check_share(self) -> None:
        """Find out whether the share has gone, or come back."""
        problem = self.share.check()
        if not problem and not (self.share_present and self.share_folders.is_same_share):
            problem = self.open_share()
        self.problems.set("share", problem)
        self.problems.set("folders", "" if problem else self.share_folders.check())
        self.share_present = not problem
        if problem:
            self.intake.postpone_scan(self.clock.now_s())

    def open_share(self) -> str:
        """Make the folders that are missing; the first time, settle what a crash left. Returns what is wrong."""
        try:
            self.share_folders.open()
        except OSError as error:
            return f"the folders of the share can't be made: {error.strerror}"
        if problem := self.hold_lease():
            return problem
        self.intake.meet_share()
        if not self._recovered:
            try:
                was_older = reconcile(self.folders, self.ledger, self.clock)
            except OSError as error:
                return f"what has ended on the share can't be read: {error.strerror}: {error.filename}"
            self._recovered = True
            self.publisher.recover()
            self.publisher.make_signing_key()
            self.first_parts.recover(in_batches=was_older)
            self.intake.recover_claims(self.clock.at_ms())
            self.intake.accept_copied_media()
        return ""

    def keep_lease(self) -> None:
        """Renew the lease of a share that is there. A share that can't be read now is found out by the next scan."""
        if self.share_present:
            self.share_present = not self.hold_lease()

    def hold_lease(self) -> str:
        """Return why this daemon may not use the share now. Raises ShareTaken where another daemon serves it."""
        try:
            return self.lease.check()
        except OSError as error:
            where = error.filename or self.folders.share
            return "" if self.lease.is_held else f"the share can't be taken into use: {error.strerror}: {where}"
        except ShareTaken:
            self.share_present = False
            raise

    def can_write_share(self) -> bool:
        """Whether the share has not gone since the last scan: nothing must be written below an empty mount point."""
        return self.share_present and is_file(self.folders.share_id_file)

    # out -------------------------------------------------------------------------------------------------------------

    def collect_results(self, events: list[PoolEvent]) -> None:
        """Write what the workers reported, and start more spans, in one transaction."""
        if not events:
            return
        with self.ledger.together():
            for finished in self.dispatcher.collect(events):
                self.hand_over(finished)
            self.dispatcher.assign()
        self.dispatcher.release()
        for job, staging in self.dispatcher.take_first_parts():
            self.first_parts.show(job, staging)
        self._may_archive = True

    def hand_over(self, finished: FinishedAttempt) -> None:
        """Give a finished attempt to the publisher; one whose earlier result is gone is rendered after all."""
        if finished.earlier is None:
            failpoint("assembled")
            self.publisher.add(finished, delay_s=GATHER_S if self.dispatcher.attempts else 0.0)
        elif not self.publisher.add_copy(finished.attempt, finished.earlier):
            self.dispatcher.continue_attempt(finished.attempt)

    def publish_results(self) -> None:
        self._may_archive |= bool(self.publisher.pending)
        if self.share_present:
            self.publisher.publish()

    def archive_inputs(self) -> None:
        """Let files follow the jobs that have ended, a batch at a time."""
        now_s = self.clock.now_s()
        if self.share_present and self._may_archive and now_s >= self._next_archive_s:
            self._next_archive_s = now_s + ARCHIVE_S
            self.first_parts.remove_ended()
            self._may_archive = self.archiver.archive_inputs()

    def delete_old_files(self) -> None:
        if self.share_present:
            self._pruning = not self.draining and self.retention.step()
            self.drafts.step()

    # reports ---------------------------------------------------------------------------------------------------------

    def save_progress(self) -> None:
        now_s = self.clock.now_s()
        if now_s >= self._next_save_s:
            self._next_save_s = now_s + PROGRESS_S
            self.dispatcher.save_progress()
            self.dispatcher.explain_waits()

    def report_status(self) -> None:
        """Write status.json and status.db if they are due, and the line for systemd."""
        now_s = self.clock.now_s()
        if now_s >= self._next_status_s:
            self._next_status_s = now_s + self.settings.current.status.write_s
            self.write_status()
            if self.can_write_share():
                self.status_db.update()

    def write_status(self, *, running: bool = True) -> None:
        state = DaemonState(running, self.draining, self.intake.is_paused)
        self.status.write(state, on_share=self.can_write_share())

    def feed_watchdog(self) -> None:
        now_s = self.clock.now_s()
        self.watchdog.feed(now_s, liveness_error(self.loop_status(), now_s))

    def loop_status(self) -> LoopStatus:
        watcher = self.intake.watcher
        watched = not self.share_present or self.intake.polls or watcher.is_alive or bool(watcher.problem)
        period_s = max(self.settings.current.inbox.scan_s, MAX_WAIT_S)
        return LoopStatus(
            self.intake.last_scan_s, period_s, watched, self.heartbeat.committed_s, idle=not self.dispatcher.attempts
        )

    # life ------------------------------------------------------------------------------------------------------------

    def run(self, source: Path | None = None) -> bool:
        """Serve until SIGTERM or SIGINT: the first lets running spans finish, the second ends at once. SIGHUP reads
        the settings again from `source`.

        Returns whether the state's disk is full: then another daemon has to go on, as after a crash.
        """
        signals, disk_full, is_sound = Signals(self.pool.wake), False, True
        try:
            with raise_disk_full(), name_damage(self.folders.ledger):
                self.step(0.0)
                self.notifier.send_ready()
                while not signals.stop_requests:
                    if signals.take_reload() and source is not None:
                        self.reload(source)
                    self.step()
                self.drain(signals)
        except DiskFull as error:
            disk_full = True
            log.error("the state folder %s can't be written (%s): jobs wait", self.folders.state, error)
        except LedgerError:
            is_sound = False
            raise
        finally:
            signals.restore()
            self.abandon() if disk_full or not is_sound else self.close()
        return disk_full

    def drain(self, signals: Signals) -> None:
        """Start nothing new; running spans finish, and their files are there for the next start."""
        self.draining = True
        failpoint("draining")
        self.notifier.send_stopping()
        log.info("stopping: waiting for the running spans")
        pool = self.settings.current.pool
        drain = Drain(self.clock.now_s(), pool.drain_s)
        while self.dispatcher.has_running_spans and signals.stop_requests < 2 and not drain.is_over(self.clock.now_s()):
            if drain.note_progress(self.dispatcher.units_done):
                self.notifier.extend_timeout(pool.stall_s + DRAIN_MARGIN_S)
            self.step(0.5)
        if self.share_present and signals.stop_requests < 2:
            self.publisher.publish(early_s=GATHER_S)
            self.first_parts.remove_ended()
            self.archiver.archive_inputs()
        if self.dispatcher.has_running_spans:
            log.warning("stopping: the running spans are interrupted, they are done again after the next start")

    def reload(self, source: Path) -> None:
        """Take over the settings that can change while the daemon runs, and name those that can't."""
        self.notifier.send_reloading()
        try:
            settings, taken, kept = merge_settings(self.settings.current, load_settings(source))
        except BadSettings as bad:
            self.problems.set_notice(f"the settings are as before, the file can't be used: {bad}")
        else:
            self.settings.replace(settings)
            self.intake.apply_settings()
            if settings.pool.walls and {"inbox.media_roots", "inbox.path_map"} & set(taken):
                self.pool.replace_workers()  # the others may not open the new folders
            self.share_present = False  # the next scan, which is due now, opens it again
            configure_logging(settings)
            log.info("settings taken over: %s", ", ".join(taken) or "none had changed")
            self.problems.set_notice(f"a restart is needed for {', '.join(kept)}" if kept else "")
        self._next_status_s = 0.0
        self.notifier.send_ready()

    def close(self) -> None:
        """Stop the workers, and leave the ledger and the share in order."""
        self._end_programs()
        self.dispatcher.save_progress()
        self.dispatcher.requeue_all("the daemon was stopped")
        self.write_status(running=False)
        if self.can_write_share():
            self.status_db.finish()
            self.lease.release()
        self.damage_check.close(clean=True)
        self.ledger.close()
        self.lock.release()
        log.info("stopped")

    def abandon(self) -> None:
        """Stop the workers and write nothing: what is on disk is enough to begin again."""
        self._end_programs()
        self.damage_check.close(clean=False)
        self.ledger.close()
        self.lock.release()

    def _end_programs(self) -> None:
        self.intake.close()
        self.selftests.close()
        if self.signer is not None:
            self.signer.close()
        self.pool.close()

    @property
    def has_finished(self) -> bool:
        """Whether no job is waiting, queued or running, and all files have followed their rows."""
        counts = self.ledger.counts()
        return not any(counts[state] for state in LIVE) and not self.ledger.list_unarchived(1)


def serve(settings: Settings, handler: str = HANDLER, source: Path | None = None) -> None:
    """Run a daemon; if the state's disk becomes full, run another one as soon as there is room.

    `source`: the file that SIGHUP reads again.
    """
    keep_privileges_here()
    if settings.pool.walls:
        forbid_tracing()
    let_group_read()
    faulthandler.enable()  # a daemon that the watchdog aborts says where it hung
    notifier = Notifier()
    while True:
        try:
            with raise_disk_full():
                daemon = Daemon(settings, handler, signs=True)
                if not daemon.run(source):
                    return
                settings = daemon.settings.current
        except DiskFull as error:
            log.error("the state folder %s can't be written (%s)", settings.state, error)
        await_room(settings, notifier, DRAIN_MARGIN_S)
