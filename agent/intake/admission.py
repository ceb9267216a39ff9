"""What lies in the inbox becomes rows: jobs, refusals, cancellations, second tries."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from agent.errors import ErrorCode
from agent.fs import Fingerprint, find_filesystem_kind, has_change_events, is_open_for_writing, read_limited
from agent.intake.commands import CancelJob, Command, DrainDevice, ResumeDevice
from agent.intake.media import MediaFinder, MissingMedia
from agent.intake.scanner import Control, Inbox, Submission
from agent.intake.watcher import InboxWatcher
from agent.jobs.json_text import BadJob
from agent.jobs.parse import pair_media, parse_job
from agent.jobs.spec import JobSpec
from agent.jobs.states import JobState
from agent.ledger.job import Job, JobError
from agent.ledger.ledger import LIVE, Ledger
from agent.results import outbox
from agent.results.publisher import marks_of
from agent.service.log import make_extra
from agent.settings import Settings
from gpu_pool.failpoints import failpoint

log = logging.getLogger("musedrop")

SHORTEST_SCAN_S = 0.02
"""A burst of events is answered by one scan."""
BATCH = 256
"""How many jobs are looked at in one turn: a flood of files must not keep the workers waiting."""
PAUSED = "paused_ms"
INPUTS_GONE = BadJob(
    ErrorCode.INPUTS_GONE,
    "its files in failed are no longer there: retention.failed_days has passed, or a user deleted them",
)
INCOMPLETE = (ErrorCode.NOT_JSON, ErrorCode.BAD_ENCODING, ErrorCode.TRAILING_COMMA, ErrorCode.NOT_AN_OBJECT)
"""Text that may yet become a job file while it is being written."""


class Intake:
    """Admission: what lies in the inbox becomes rows."""

    def __init__(self, settings: Settings, ledger: Ledger, wake: Callable[[], None]):
        self.settings, self.ledger = settings, ledger
        folders = settings.folders
        self.polls = False
        self.limit = settings.inbox.max_job_bytes
        self.inbox = Inbox(folders.inbox, folders.claimed, settings.inbox.settle_s, self.limit, self.is_job_file)
        self.watcher = InboxWatcher(folders.inbox, wake)
        self.media = self._make_media_finder()
        self._next_scan_s = 0.0
        self._last_scan_s = -float("inf")
        self._sought = 0

    def _make_media_finder(self) -> MediaFinder:
        folders, asked = self.settings.folders, self.settings.inbox
        return MediaFinder(folders.inbox, folders.avatars, tuple(asked.media_roots), self.is_settled, asked.path_map)

    def adopt(self, settings: Settings) -> None:
        """Settings that were changed while the daemon runs; those of the share count when it is met again."""
        self.settings = settings
        self.limit = self.inbox.max_job_bytes = settings.inbox.max_job_bytes
        self.media = self._make_media_finder()
        self._next_scan_s = 0.0

    @property
    def last_scan_s(self) -> float:
        """When the last scan was, or would have been but for the share."""
        return self._last_scan_s

    def meet_share(self) -> None:
        """The share has appeared: find out what its file system tells of changes."""
        kind = find_filesystem_kind(self.settings.folders.inbox)
        tells = has_change_events(kind)
        self.polls = self.settings.inbox.watch == "poll" or (self.settings.inbox.watch == "auto" and not tells)
        self.inbox.settle_s = self.settings.inbox.settle_s if tells else self.settings.inbox.share_settle_s
        if self.polls:
            self.watcher.stop()
            log.info("the inbox is on %s: it is polled", kind)

    # scanning --------------------------------------------------------------------------------------------------------

    @property
    def next_scan_s(self) -> float:
        """When to look next."""
        soonest_s = self._last_scan_s + SHORTEST_SCAN_S if self.watcher.touched else float("inf")
        return min(self._next_scan_s, soonest_s)

    def is_scan_due(self, now: float) -> bool:
        return now >= self.next_scan_s

    def scan(self, now: float) -> bool:
        """Look at the inbox; the watch is mended on the way. False while the inbox can't be read."""
        self._last_scan_s = now
        moved = self.watcher.take_moved()
        if not self.polls and not self.watcher.is_alive:
            self.watcher.start()
        self.inbox.renamed |= moved
        readable = self.inbox.scan(now)
        settle = self.inbox.next_settle_s(now)
        self._next_scan_s = now + min(self.settings.inbox.scan_s, settle if settle is not None else float("inf"))
        return readable

    def postpone(self, now: float) -> None:
        """The share is away: look again at the next period."""
        self._last_scan_s = now
        self.watcher.take_moved()
        self._next_scan_s = now + self.settings.inbox.scan_s

    def is_settled(self, path: Path) -> bool:
        """Media outside the inbox were not put there for one job: they only must not be open or brand-new."""
        if path.parent == self.inbox.folder.resolve():
            return self.inbox.is_settled(path.name, self._last_scan_s)
        if path.is_relative_to(self.settings.folders.claimed.resolve()):
            return True
        age_s = time.time() - path.stat().st_mtime
        return (age_s >= self.inbox.settle_s or age_s < 0) and is_open_for_writing(path) is not True

    def parse_submission(self, drop: Submission) -> JobSpec:
        return pair_media(drop.name, *drop.media) if drop.text is None else parse_job(drop.text, self.limit)

    def is_job_file(self, text: bytes) -> bool:
        """Whether the bytes are a whole job file, right or wrong in what it asks."""
        try:
            parse_job(text, self.limit)
        except BadJob as bad:
            return bad.code not in INCOMPLETE
        return True

    # jobs ------------------------------------------------------------------------------------------------------------

    def claim_new(self, at: int) -> None:
        """Claim what is complete and make rows of it."""
        found = list(islice(self.inbox.find_candidates(self._last_scan_s, self.media_in_use), BATCH))
        if len(found) == BATCH:
            self._next_scan_s = self._last_scan_s  # the rest has its turn when running jobs had theirs
        claims = (self.inbox.claim(one, secrets.token_hex(8)) for one in found)
        drops = [drop for drop in claims if drop is not None]
        self.inbox.sync_claims(drops)
        if drops:
            failpoint("claimed")
        with self.ledger.together():
            for drop in drops:
                self.insert(drop, at)

    def media_in_use(self) -> set[Fingerprint]:
        """Media in the inbox that belong to jobs."""
        return {mark for job in self.ledger.unswept() for mark in marks_of(job)}

    def recover_claims(self, at: int) -> None:
        """Claims whose rows were prevented, by a crash or by a share that failed in the middle."""
        with self.ledger.together():
            for drop in self.inbox.recover_claims(lambda uid: self.ledger.job(uid) is not None):
                self.insert(drop, at)

    def insert(self, drop: Submission, at: int) -> None:
        origin = {"digest": drop.digest, "submitter": drop.owner}
        try:
            spec = self.parse_submission(drop)
        except BadJob as bad:
            self.ledger.transitions.refuse(drop.uid, drop.name, error_of(bad), at_ms=at, **origin)
            log.error("%s is refused (%s): %s", drop.name, bad.code, bad.message, extra=make_extra(drop))
            return
        if spec.submitter:
            origin["submitter"] = spec.submitter
        failpoint("before_insert")
        with self.ledger.together():
            self.seek_media(self.ledger.transitions.add(drop.uid, drop.name, spec, at_ms=at, **origin), at)
        failpoint("inserted")
        log.info("%s accepted", drop.name, extra=make_extra(drop))

    def seek_waiting(self, at: int) -> None:
        """A batch of the waiting jobs, and the next one at the next scan."""
        jobs = self.ledger.waiting(self._sought, BATCH)
        self._sought = jobs[-1].id if len(jobs) == BATCH else 0
        with self.ledger.together():
            for job in jobs:
                self.seek_media(job, at)

    def seek_media(self, job: Job, at: int) -> None:
        """waiting -> queued when its media are complete, -> failed when they are not allowed or don't come."""
        assert job.spec is not None  # noqa: S101 - refused drops never wait
        if job.client_id and (twin := self.ledger.unfinished_twin(job)):
            self._wait(job, f'the job "{twin.name}" of the same id')
            return
        try:
            found = self.media.find(job.spec, self.settings.folders.claimed / job.uid)
        except BadJob as bad:
            self.give_up(job, bad, at)
            return
        if not isinstance(found, MissingMedia):
            media: dict[str, Any] = {role: medium.to_dict() for role, medium in found.items()}
            self.ledger.transitions.queue(job, media, at_ms=at)
        elif at - job.since_ms > 1000 * self.settings.inbox.wait_media_s:
            self.give_up(job, BadJob(ErrorCode.MISSING_MEDIA, found.reason), at)
        else:
            self._wait(job, found.reason)

    def _wait(self, job: Job, what: str) -> None:
        if what != job.waiting_for:
            self.ledger.update(job.uid, waiting_for=what)

    def give_up(self, job: Job, bad: BadJob, at: int) -> None:
        self.ledger.transitions.fail(job, error_of(bad), at_ms=at)
        log.error("%s failed (%s): %s", job.name, bad.code, bad.message, extra=make_extra(job))

    # control files ---------------------------------------------------------------------------------------------------

    def run_controls(self, at: int) -> Iterator[Command]:
        """Carry out the control files, and yield a command for each that is for another part of the daemon.

        A control file is removed when the caller asks for the next command: what it asks for is done then.
        """
        for control in list(self.inbox.find_controls()):
            command = self._run_control(control, at)
            if command is not None:
                yield command
            self.inbox.remove_control(control)

    def _run_control(self, control: Control, at: int) -> Command | None:
        match control.verb:
            case "cancel":
                return self._cancel_command(control)
            case "retry":
                self._retry(control, at)
            case verb if control.name == "":
                self._switch(verb, at)
            case "drain":
                return DrainDevice(control.name)
            case _:
                return ResumeDevice(control.name)
        return None

    def _cancel_command(self, control: Control) -> CancelJob | None:
        job = self.ledger.find(control.name, *LIVE)
        if job is None:
            log.warning("nothing to cancel: no unfinished job is called %s", control.name)
            return None
        self.ledger.transitions.request_cancel(job)
        return CancelJob(job)

    @property
    def paused(self) -> bool:
        return self.ledger.recall(PAUSED) is not None

    def _switch(self, verb: str, at: int) -> None:
        if self.paused != (verb == "pause"):
            self.ledger.remember(PAUSED, str(at) if verb == "pause" else None)
            log.info("the queue is %s", "paused: no further job is started" if self.paused else "resumed")

    def _retry(self, control: Control, at: int) -> None:
        job = self.ledger.find(control.name, JobState.FAILED, JobState.CANCELLED)
        if job is None:
            log.warning("nothing to retry: no failed or cancelled job is called %s", control.name)
            return
        claimed = self.settings.folders.claimed / job.uid
        if job.inputs and Path(job.inputs).is_dir():
            outbox.bring_back(Path(job.inputs), claimed)
        if claimed.is_dir() or self._has_media(job):
            self.reopen(job, claimed, at)
        else:
            self._refuse_retry(job, INPUTS_GONE, at)

    def _has_media(self, job: Job) -> bool:
        """Whether a job whose inputs were deleted can start over from its row: all it names lies elsewhere."""
        try:
            found = self.media.find(job.spec, self.settings.folders.claimed / job.uid) if job.spec else None
        except BadJob:
            return False
        return found is not None and not isinstance(found, MissingMedia)

    def _refuse_retry(self, job: Job, bad: BadJob, at: int) -> None:
        """The answer goes where that to the first try went: the row, and failed/NAME/error.json."""
        self.ledger.transitions.refuse_reopen(job, error_of(bad), at_ms=at)
        log.error("%s is not tried again (%s): %s", job.name, bad.code, bad.message)

    def reopen(self, job: Job, claimed: Path, at: int) -> None:
        """Let a finished job start over; its job file is read anew, since the user may have mended it."""
        text = read_limited(claimed / "job.json", self.limit)
        try:
            spec = parse_job(text, self.limit) if text is not None else job.spec
        except BadJob as bad:
            self._refuse_retry(job, bad, at)
            return
        if spec is not None:
            self.ledger.transitions.reopen(job, spec, at_ms=at)


def error_of(bad: BadJob) -> JobError:
    return JobError(bad.code, bad.message, bad.hint)
