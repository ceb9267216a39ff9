"""Admission: files of the inbox become rows of the ledger, or commands for the daemon."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from agent.clock import Pace
from agent.errors import ErrorCode
from agent.fs import (
    Fingerprint,
    atomic_write_bytes,
    find_filesystem_kind,
    follow_links,
    has_change_events,
    has_ordered_renames,
    is_folder,
    is_open_for_writing,
    read_limited,
    take_fingerprint,
)
from agent.fs.folders import make_folders
from agent.intake.archives import ZipFiles
from agent.intake.controls import library
from agent.intake.controls.commands import CancelJob, Command, DrainDevice, ResumeDevice, TrustClock, UnloadDevice
from agent.intake.folders import InboxFolders
from agent.intake.ignored import IgnoredEntries
from agent.intake.media import WRITTEN, MediaFile, MediaFinder, MissingMedia
from agent.intake.paths import fold_name
from agent.intake.scanner import Candidate, Control, Inbox, Submission, to_text
from agent.intake.speech import Speech
from agent.intake.tables import finish_unfolding, remove_if_taken, unfold_tables
from agent.intake.watcher import InboxWatcher
from agent.jobs.json_text import BadJob
from agent.jobs.parse import find_id, find_media_names, pair_media, parse_job, voice_for
from agent.jobs.spec import AVATAR_SUFFIXES, DRAFT, FRONT, PRIORITY, JobSpec
from agent.jobs.states import LIVE, UNSTARTED, JobState
from agent.ledger.job import Job, JobError
from agent.ledger.ledger import Ledger
from agent.results import outbox
from agent.service.clock_history import ClockHistory
from agent.service.entry_problems import EntryProblems
from agent.service.log import make_extra
from agent.settings import CurrentSettings
from gpu_pool.failpoints import failpoint

log = logging.getLogger("musedrop")

SHORTEST_SCAN_S = 0.02
"""The least time between two scans, so that a burst of events causes one."""
PROGRAM_S = 0.25
"""The time between two looks at a program that the intake has started."""
LONGEST_AWAY_S = 5.0
"""The longest time between two looks for a share that is away."""
BATCH = 256
"""Jobs that are looked at in one turn, so that a flood of files keeps no worker waiting."""
LONGEST_CLAIM_S = 0.1
"""For how long files are claimed in one turn, one batch at least."""
NS_PER_S = 1_000_000_000
AWAITED = 1000
"""Waiting jobs whose media are not called ignored meanwhile."""
OF_LIVE_JOBS = {"cancel", "front", "high", "normal", "low"}
"""Verbs of control files that only jobs which have not ended can follow."""
CARRIED_OUT = "carried_out"
PAUSED = "paused_ms"
INPUTS_GONE = BadJob(
    ErrorCode.INPUTS_GONE,
    "its files in failed are no longer there: retention.failed_days has passed, or a user deleted them",
)
INCOMPLETE = (ErrorCode.NOT_JSON, ErrorCode.BAD_ENCODING, ErrorCode.TRAILING_COMMA, ErrorCode.NOT_AN_OBJECT)
"""The text may be a job file that is still being written."""


class Intake:
    """Scans the inbox, claims what is complete, and runs control files."""

    def __init__(
        self,
        settings: CurrentSettings,
        ledger: Ledger,
        wake: Callable[[], None],
        entries: EntryProblems | None = None,
        history: ClockHistory | None = None,
    ) -> None:
        self.settings, self.ledger, self.folders = settings, ledger, settings.current.folders
        inbox, folders = settings.current.inbox, self.folders
        self.polls = False
        self.limit = inbox.max_job_bytes
        self._history = history
        self.entries = entries or EntryProblems(folders.share)
        self.inbox = Inbox(
            folders.inbox, folders.claimed, inbox.settle_s, self.limit, self.is_job_file, entries=self.entries
        )
        self.batches = InboxFolders(self.inbox, self._is_avatar)
        self.zips = ZipFiles(self.inbox, self._is_avatar)
        self.speech = Speech(settings)
        self.ignored = IgnoredEntries(self.inbox, self.batches)
        self._set_patience()
        self.watcher = InboxWatcher(folders.inbox, wake)
        self.media = self._make_media_finder()
        self._parsed: dict[bytes, JobSpec | BadJob] = {}
        self._other_tables: set[Fingerprint] = set()
        self._next_scan_s = 0.0
        self._last_scan_s = -float("inf")
        self._last_checked_id, self._library_ns, self._is_passed = 0, 0, False
        self._passing = Pace()
        self._waiting: dict[str, set[str]] = {}
        self._unsettled: set[str] = set()

    def _make_media_finder(self) -> MediaFinder:
        folders, asked = self.folders, self.settings.current.inbox
        roots = tuple(asked.media_roots)
        return MediaFinder(folders.inbox, folders.avatars, roots, self.is_settled, asked.path_map, files=self)

    def _set_patience(self) -> None:
        self.ignored.patience_s = self.settings.current.inbox.patience_s
        self.inbox.piece_settle_s = self.settings.current.inbox.piece_settle_s
        self.inbox.speaks_texts = self.speech.is_on

    def apply_settings(self) -> None:
        """Apply reloaded settings; `meet_share` applies those of the share."""
        self.limit = self.inbox.max_job_bytes = self.settings.current.inbox.max_job_bytes
        self.media = self._make_media_finder()
        self._set_patience()
        self._next_scan_s = 0.0

    @property
    def last_scan_s(self) -> float:
        """When the last scan was, or was postponed; monotonic seconds."""
        return self._last_scan_s

    def meet_share(self) -> None:
        """Choose between events and polling, when the share has appeared, by its file system."""
        kind = find_filesystem_kind(self.folders.inbox)
        has_events = has_change_events(kind)
        asked = self.settings.current.inbox
        self.polls = asked.watch == "poll" or (asked.watch == "auto" and not has_events)
        self.inbox.settle_s = asked.settle_s if has_events else asked.share_settle_s
        self.inbox.is_ordered = has_ordered_renames(kind)
        if self.polls:
            self.watcher.stop()
            log.info("the inbox is on %s: it is polled", kind)

    # scanning --------------------------------------------------------------------------------------------------------

    @property
    def next_scan_s(self) -> float:
        """When the next scan is due, in monotonic seconds."""
        soonest_s = self._last_scan_s + SHORTEST_SCAN_S if self.watcher.touched else float("inf")
        return min(self._next_scan_s, soonest_s)

    def is_scan_due(self, now_s: float) -> bool:
        return now_s >= self.next_scan_s

    def scan(self, now_s: float) -> bool:
        """Scan the inbox, and start the watcher again if it has ended.

        False while the inbox can't be read.
        """
        self._parsed.clear()
        self.media.begin_turn()
        self._last_scan_s, is_period = now_s, now_s >= self._next_scan_s
        touched, moved = self.watcher.take_events()
        if not self.polls and not self.watcher.is_alive:
            self.watcher.start()
            is_period = True
        self.inbox.renamed |= moved
        self.entries.forget_gone()
        readable = self.inbox.scan(now_s, None if is_period or self.polls else touched)
        if readable and self.settings.current.inbox.folders:
            unfold_tables(self.inbox, now_s, self._other_tables)
            self.zips.step(self.settings.current, now_s)
            self.batches.scan(now_s, self.settings.current.inbox.patience_s)
        settle = self.inbox.next_settle_s(now_s)
        waits_s = [self.settings.current.inbox.scan_s, float("inf") if settle is None else settle]
        waits_s += [PROGRAM_S] if self.zips.folder or self.speech.is_running else []
        self._next_scan_s = now_s + min(waits_s)
        return readable

    def close(self) -> None:
        """End the watcher, and the programs that the intake has started."""
        self.watcher.stop()
        self.zips.close()
        self.speech.close()

    def postpone_scan(self, now_s: float) -> None:
        """Skip a scan because the share is away."""
        self._last_scan_s = now_s
        self.watcher.take_moved()
        self._next_scan_s = now_s + min(self.settings.current.inbox.scan_s, LONGEST_AWAY_S)

    def is_settled(self, path: Path) -> bool:
        """Whether a media file is complete.

        Outside the inbox it must be neither open nor brand-new.
        """
        if path.parent in (self.inbox.folder, follow_links(self.inbox.folder)):
            return self.inbox.is_settled(path.name, self._last_scan_s)
        if (batch := next((one for one in self.batches if one.folder == path.parent), None)) is not None:
            return batch.is_settled(path.name, self._last_scan_s)
        if path.is_relative_to(self.folders.claimed) or path.is_relative_to(follow_links(self.folders.claimed)):
            return True
        age_s = time.time() - path.stat().st_mtime
        return (age_s >= self.inbox.settle_s or age_s < 0) and is_open_for_writing(path) is not True

    def find_names(self, name: str) -> list[str]:
        """Return the entries of the inbox of that name, in any spelling."""
        return self.inbox.find_names(name)

    def is_file(self, name: str) -> bool:
        """Whether an entry of the inbox is a regular file."""
        return self.inbox.is_file(name)

    def take_settled(self, name: str) -> Fingerprint | None:
        """Return the fingerprint of a file of the inbox, None while it is still being written."""
        is_settled = self.inbox.is_settled(name, self._last_scan_s)
        return self.inbox.tracked[name].fingerprint if is_settled else None

    def parse_submission(self, submission: Submission) -> JobSpec:
        """Return what the submission asks for. Raises BadJob."""
        if submission.text is not None:
            spec = self._parse_or_raise(submission.text)
        elif len(submission.media) == 1:
            spec = voice_for(submission.batch, *submission.media)
        else:
            spec = pair_media(submission.name, *submission.media)
        return spec.model_copy(update={"batch": submission.batch}) if submission.batch else spec

    def _is_avatar(self, name: str) -> bool:
        """Whether the library has an avatar of this name."""
        try:
            return self.media.lookup.find_avatar(self.folders.avatars, name, AVATAR_SUFFIXES) is not None
        except OSError:
            return False

    def is_job_file(self, text: bytes) -> bool:
        """Whether the bytes are a whole JSON object, even one that is refused."""
        parsed = self._parse(text)
        return not isinstance(parsed, BadJob) or parsed.code not in INCOMPLETE

    def _parse_or_raise(self, text: bytes) -> JobSpec:
        parsed = self._parse(text)
        if isinstance(parsed, BadJob):
            raise parsed
        return parsed

    def _parse(self, text: bytes) -> JobSpec | BadJob:
        """Parse a job file, once in a turn: it is looked at before it is taken and afterwards."""
        if text not in self._parsed:
            try:
                self._parsed[text] = parse_job(text, self.limit)
            except BadJob as bad:
                self._parsed[text] = bad
        return self._parsed[text]

    # jobs ------------------------------------------------------------------------------------------------------------

    def claim_new(self, at_ms: int) -> None:
        """Claim what is complete and insert its rows."""
        claims = self._claim_batch()
        submissions = [submission for submission in claims if submission is not None]
        if any(submission.media for submission in submissions):
            self.media.begin_turn()  # what was found may have been claimed as half of a pair
        self.inbox.sync_claims(submissions)
        if submissions:
            failpoint("claimed")
        with self.ledger.together():
            for submission in submissions:
                self.insert(submission, at_ms)
        self.inbox.unsettled = False
        for batch in self.batches:
            if not batch.tracked:
                with suppress(OSError):
                    remove_if_taken(batch.folder)

    def _claim_batch(self) -> list[Submission | None]:
        """Claim what is complete, a batch at least; the rest follows after a turn of the running jobs."""
        claims, end_s = list[Submission | None](), time.monotonic() + LONGEST_CLAIM_S
        for inbox in (self.inbox, *self.batches):
            for candidate in self._find_candidates(inbox):
                claims.append(self._claim(inbox, candidate))
                if len(claims) >= BATCH and time.monotonic() > end_s:
                    self._next_scan_s = self._last_scan_s
                    return claims
        return claims

    def _find_candidates(self, inbox: Inbox) -> Iterator[Candidate]:
        return inbox.find_candidates(self._last_scan_s, self.media_in_use)

    def _claim(self, inbox: Inbox, candidate: Candidate) -> Submission | None:
        submission = inbox.claim(candidate, secrets.token_hex(8))
        if submission is not None:
            for name in candidate.files:
                self.ignored.note_taken(name, f'it came again after it was taken for the job "{submission.name}"')
            for name in candidate.left:
                used = " and ".join(map(to_text, candidate.files))
                self.ignored.note_taken(name, f'the job "{submission.name}" was made of {used}, and this one was left')
        return submission

    def refuse_others(self, at_ms: int) -> None:
        """Fail what was surely meant as a job and can't be one; tell of all else that becomes no job."""
        now_s = self._last_scan_s
        for inbox in (self.inbox, *self.batches):
            for candidate, bad in self._list_refused(inbox):
                submission = inbox.claim_refused(candidate, secrets.token_hex(8))
                if submission is not None:
                    self.refuse(submission, bad, at_ms)
        self.ignored.update(now_s, lambda: (self.media_in_use(), self.list_awaited_names()))

    def _list_refused(self, inbox: Inbox) -> list[tuple[Candidate, BadJob]]:
        """Return what was surely meant as a job and can't be one, but none whose files another job needs."""
        refused = [
            *self.ignored.find_refused(self._last_scan_s, inbox),
            *(self.zips.find_refused() if inbox is self.inbox else ()),
        ]
        if not refused:
            return []
        in_use, awaited = self.media_in_use(), self.list_awaited_names()
        needed = {name for name, file in inbox.tracked.items() if file.fingerprint in in_use}
        return [
            (candidate, bad)
            for candidate, bad in refused
            if not any(name in needed or fold_name(name) in awaited for name in candidate.files)
        ]

    def media_in_use(self) -> set[Fingerprint]:
        """Return the media in the inbox that belong to jobs."""
        return self.ledger.list_media_in_use()

    def accept_copied_media(self) -> None:
        """Record the media in the inbox anew where the share was copied or restored before the start.

        Those of finished jobs, too, else they would be taken for a pair.
        """
        for job in self.ledger.list_with_media():
            media = {role: renew_fingerprint(medium) for role, medium in job.media.items()}
            if media != job.media:
                self.ledger.update(job.uid, media=media)

    def list_awaited_names(self) -> set[str]:
        """Return the file names, folded, of media that waiting jobs give."""
        return {name for job in self.ledger.list_waiting(0, AWAITED) for name in list_given_names(job)}

    @property
    def may_have_unsettled(self) -> bool:
        """Whether claims may have no row, but those of a crash."""
        return self.inbox.may_have_unsettled

    def recover_claims(self, at_ms: int) -> None:
        """Insert the rows of claims that have none, after a crash or an error of the share."""
        with suppress(OSError):
            finish_unfolding(self.folders.inbox, self.zips.folder)
        with self.ledger.together():
            for submission in self.inbox.recover_claims(lambda uid: self.ledger.job(uid) is not None):
                self.insert(submission, at_ms)

    def insert(self, submission: Submission, at_ms: int) -> None:
        """Insert the row of a submission: a waiting or queued job, or a refusal."""
        origin: dict[str, Any] = {"digest": submission.digest, "submitter": submission.owner}
        try:
            spec = self.parse_submission(submission)
        except BadJob as bad:
            self.refuse(submission, bad, at_ms)
            return
        if spec.submitter:
            origin["submitter"] = spec.submitter
        if spec.is_draft:
            origin["submitter"] = DRAFT
        failpoint("before_insert")
        media, transitions = self._find_at_once(submission, spec), self.ledger.transitions
        with self.ledger.together():
            if spec.is_draft:
                self.ledger.retention.note_draft(submission.uid)
            if media is not None:
                transitions.add_queued(submission.uid, submission.name, spec, media, at_ms=at_ms, **origin)
            else:
                self.check_media(transitions.add(submission.uid, submission.name, spec, at_ms=at_ms, **origin), at_ms)
        failpoint("inserted")
        log.info("%s accepted", submission.name, extra=make_extra(submission))

    def _find_at_once(self, submission: Submission, spec: JobSpec) -> dict[str, Any] | None:
        """Return the media of a new job if nothing else is to be said of them; None where `check_media` has to."""
        if spec.id or self.speech.is_on:
            return None
        try:
            found = self.media.find(spec, submission.folder, submission.files)
        except (BadJob, OSError):
            return None
        return None if isinstance(found, MissingMedia) else {role: medium.to_dict() for role, medium in found.items()}

    def _list_left_media(self, job: Job) -> dict[str, Any]:
        """Return the files in the inbox that a job names which doesn't run."""
        names = {"avatar": job.spec.avatar, **job.spec.media_names} if job.spec else {}
        return self._list_named_media(names, job.spec.batch if job.spec else "")

    def _list_named_media(self, names: Mapping[str, str | None], batch: str) -> dict[str, Any]:
        return {role: medium.to_dict() for role, medium in self.media.find_left(names, batch).items()}

    def refuse(self, submission: Submission, bad: BadJob, at_ms: int) -> None:
        """Insert the row of a submission that can't be a job."""
        origin: dict[str, Any] = {"digest": submission.digest, "submitter": submission.owner}
        origin["client_id"] = find_id(submission.text or b"")
        origin["media"] = self._list_named_media(find_media_names(submission.text or b""), submission.batch)
        self.ledger.transitions.refuse(submission.uid, submission.name, make_job_error(bad), at_ms=at_ms, **origin)
        log.error("%s is refused (%s): %s", submission.name, bad.code, bad.message, extra=make_extra(submission))

    def check_waiting_jobs(self, at_ms: int) -> None:
        """Look for the media of the waiting jobs that something has changed for, and of a batch of the others."""
        if self.speech.is_running:
            self.speech.end_unwanted(self._is_waiting)
        jobs = self._list_affected()
        if len(jobs) < BATCH and (self._is_pass_urgent() or self._passing.is_due(self._last_scan_s)):
            batch = self._take_batch(BATCH - len(jobs))
            with self._passing.measure(self._last_scan_s, len(batch)):
                self._check_jobs([*jobs, *batch], at_ms)
        else:
            self._check_jobs(jobs, at_ms)

    def _check_jobs(self, jobs: Sequence[Job], at_ms: int) -> None:
        with self.ledger.together():
            for job in {job.uid: job for job in jobs}.values():
                self.check_media(job, at_ms)

    def _take_batch(self, limit: int) -> list[Job]:
        """Return the next batch of waiting jobs; the batch after the last is the first."""
        jobs = self.ledger.list_waiting(self._last_checked_id, limit)
        is_last = len(jobs) < limit
        self._last_checked_id = 0 if is_last else jobs[-1].id
        self._is_passed |= is_last
        if not self._is_passed:
            self._next_scan_s = self._last_scan_s  # the rest follows after a turn of the running jobs
        return jobs

    def _is_pass_urgent(self) -> bool:
        """Whether all waiting jobs are to be looked at soon: at the start, and when the library has changed."""
        try:
            changed_ns = self.folders.avatars.stat().st_mtime_ns
        except OSError:
            changed_ns = 0
        if changed_ns != self._library_ns:
            self._library_ns, self._is_passed, self._last_checked_id = changed_ns, False, 0
        return not self._is_passed

    def _list_affected(self) -> list[Job]:
        """Return waiting jobs that name what has changed in the inbox, or was still being written."""
        changed = {fold_name(name) for inbox in (self.inbox, *self.batches) for name in inbox.take_changed()}
        self._unsettled.update(uid for name in changed for uid in self._waiting.pop(name, ()))
        uids = sorted(self._unsettled)[:BATCH]
        self._unsettled.difference_update(uids)
        jobs = [job for uid in uids if (job := self.ledger.job(uid)) is not None]
        return [job for job in jobs if job.state is JobState.WAITING]

    def _await_media(self, job: Job, missing: MissingMedia) -> None:
        """Remember which names a waiting job is to be looked at for."""
        if missing.reason.endswith(WRITTEN) or missing.code is ErrorCode.SPEECH_FAILED:
            self._unsettled.add(job.uid)
        for name in list_given_names(job):
            self._waiting.setdefault(name, set()).add(job.uid)

    def _is_waiting(self, uid: str) -> bool:
        job = self.ledger.job(uid)
        return job is not None and job.state is JobState.WAITING

    def _find_media(self, job: Job, spec: JobSpec) -> dict[str, MediaFile] | MissingMedia:
        """Return the media of a job, its texts spoken. Raises BadJob, OSError."""
        claimed = self.folders.claimed / job.uid
        found = self.media.find(spec, claimed)
        if isinstance(found, MissingMedia):
            return found
        heard = self.speech.replace_texts(job.uid, found, claimed, self._last_scan_s)
        if not isinstance(heard, MissingMedia) and len(heard) > len(found):
            note = f"The voice was made of a text by {self.speech.program}."
            noted = spec.model_copy(update={"notes": tuple(dict.fromkeys((*spec.notes, note)))})
            self.ledger.update(job.uid, spec=noted.model_dump_json())
        return heard

    def check_media(self, job: Job, at_ms: int) -> None:
        """Queue a waiting job when its media are complete; fail it when they can't be had."""
        assert job.spec is not None  # noqa: S101 - a refused submission never waits
        if job.client_id and (earlier := self.ledger.find_live_duplicate(job)):
            self._set_waiting_for(job, f'the job "{earlier.name}" of the same id')
            return
        try:
            found = self._find_media(job, job.spec)
        except BadJob as bad:
            self._fail(job, bad, at_ms)
            return
        except OSError as error:
            self._set_waiting_for(job, f"its media can't be looked at: {error.strerror}")
            return
        if not isinstance(found, MissingMedia):
            media: dict[str, Any] = {role: medium.to_dict() for role, medium in found.items()}
            self.ledger.transitions.queue(job, media, at_ms=at_ms)
        elif self._elapsed_s(job.since_ms, at_ms) > self._wait_s(found):
            self._fail(job, BadJob(found.code, found.reason, found.code.hint), at_ms)
        else:
            self._await_media(job, found)
            self._set_waiting_for(job, found.reason)

    def _wait_s(self, missing: MissingMedia) -> float:
        """Return how long a job waits for what is missing: for rights that are not given soon, only a while."""
        asked = self.settings.current.inbox
        if missing.code is ErrorCode.SPEECH_FAILED:
            return float("inf")
        return asked.patience_s if missing.code is ErrorCode.NOT_READABLE else asked.wait_media_s

    def _elapsed_s(self, since_ms: int, at_ms: int) -> float:
        """Return the seconds since a time of the calendar, whatever has been done to the clock since."""
        return self._history.elapsed_s(since_ms) if self._history is not None else (at_ms - since_ms) / 1000

    def _set_waiting_for(self, job: Job, reason: str) -> None:
        """Record what a job waits for, and which of its media are there: no other job takes them along when it ends."""
        media = self._list_left_media(job)
        if (reason, media) != (job.waiting_for, job.media):
            self.ledger.update(job.uid, waiting_for=reason, media=media)

    def _fail(self, job: Job, bad: BadJob, at_ms: int) -> None:
        failed = self.ledger.transitions.fail(job, make_job_error(bad), at_ms=at_ms)
        if not failed.media:
            self.ledger.update(failed.uid, media=self._list_left_media(failed))
        log.error("%s failed (%s): %s", job.name, bad.code, bad.message, extra=make_extra(job))

    # control files ---------------------------------------------------------------------------------------------------

    def run_controls(self, at_ms: int) -> Iterator[Command]:
        """Carry out the control files; yield a command for each that another part must carry out.

        A control file is removed when the caller asks for the next command, and so has done this
        one. One that can't be removed is carried out once.
        """
        for control in list(self.inbox.find_controls(self._last_scan_s)):
            if control.verb in OF_LIVE_JOBS and self._comes_early(control):
                continue
            if not self._was_carried_out(control):
                if (command := self._try_control(control, at_ms)) is not None:
                    yield command
                if control.path in self.entries:
                    continue
            if not self.inbox.remove_control(control):
                self._remember_carried_out(control)

    def _comes_early(self, control: Control) -> bool:
        """Whether it is about a job whose files are still being written: it is carried out when that is accepted."""
        if self.ledger.find(control.name, *LIVE) is not None:
            return False
        return self.inbox.may_become_job(control.name, self._last_scan_s, self.settings.current.inbox.patience_s)

    def _was_carried_out(self, control: Control) -> bool:
        """Whether it was carried out before and could not be removed."""
        mark = take_fingerprint(control.path)
        return mark is not None and self._read_carried_out().get(os.fsencode(control.path.name).hex()) == str(mark)

    def _remember_carried_out(self, control: Control) -> None:
        """Note in the ledger that the control file has had its effect, for later starts too."""
        there = {os.fsencode(name).hex(): str(file.fingerprint) for name, file in self.inbox.tracked.items()}
        known = {name: mark for name, mark in self._read_carried_out().items() if there.get(name) == mark}
        known[os.fsencode(control.path.name).hex()] = str(take_fingerprint(control.path))
        self.ledger.remember(CARRIED_OUT, json.dumps(known))

    def _read_carried_out(self) -> dict[str, str]:
        return self.ledger.recall_object(CARRIED_OUT)

    def _try_control(self, control: Control, at_ms: int) -> Command | None:
        """Carry out a control file; where an entry that it is about is in the way, that is its problem."""
        try:
            command = self._run_control(control, at_ms)
        except OSError as error:
            is_new = self.entries.note(control.path, "be carried out", error)
            if is_new and (job := self.ledger.find(control.name)) is not None:
                self.ledger.record_event(job.uid, "problem", at_ms, self.entries.text_of(control.path))
            return None
        self.entries.clear(control.path)
        return command

    def _run_control(self, control: Control, at_ms: int) -> Command | None:
        match control.verb:
            case "cancel":
                return self._cancel_command(control)
            case "retry":
                self._retry(control, at_ms)
            case "front" | "high" | "normal" | "low":
                self._set_turn(control, at_ms)
            case "avatar":
                library.add_avatar(self.folders, control.path, control.name)
                log.info("the library has a new avatar: %s", control.name)
            case "forget":
                self._forget_avatar(control.name, at_ms)
            case "trust-clock":
                return TrustClock()
            case verb if control.name == "":
                self._switch_queue(verb, at_ms)
            case "drain":
                return DrainDevice(control.name)
            case "unload":
                return UnloadDevice(control.name)
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
    def is_paused(self) -> bool:
        return self.ledger.recall(PAUSED) is not None

    def _switch_queue(self, verb: str, at_ms: int) -> None:
        if self.is_paused != (verb == "pause"):
            self.ledger.remember(PAUSED, str(at_ms) if verb == "pause" else None)
            log.info("the queue is %s", "paused: no further job is started" if self.is_paused else "resumed")

    def _set_turn(self, control: Control, at_ms: int) -> None:
        """Give a job that has not started another priority, or one that no other job reaches by waiting."""
        job = self.ledger.find(control.name, *UNSTARTED)
        if job is None:
            log.warning("nothing to move: no job that waits for its turn is called %s", control.name)
            return
        front = FRONT * (self.ledger.queue.highest_priority() // FRONT + 1)
        priority = front if control.verb == "front" else PRIORITY[control.verb]
        self.ledger.update(job.uid, priority=priority)
        self.ledger.record_event(job.uid, "priority", at_ms, control.verb)

    def _forget_avatar(self, name: str, at_ms: int) -> None:
        if jobs := self.ledger.queue.list_unstarted_with(name):
            log.warning("%s stays in the library: %d unstarted jobs need it, %s first", name, len(jobs), jobs[0])
        elif (kept := library.forget_avatar(self.folders, name, at_ms)) is None:
            log.warning("nothing to forget: the library has no avatar %s", name)
        else:
            log.info("%s has left the library: its file is in %s for a while", name, kept)

    def _retry(self, control: Control, at_ms: int) -> None:
        job = self.ledger.find(control.name, JobState.FAILED, JobState.CANCELLED)
        if job is None:
            log.warning("nothing to retry: no failed or cancelled job is called %s", control.name)
            return
        claimed = self.folders.claimed / job.uid
        if job.inputs and is_folder(Path(job.inputs)):
            outbox.restore_inputs(Path(job.inputs), claimed)
        if (edited := read_limited(control.path, self.limit)) and is_job_text(edited):
            make_folders([claimed])
            atomic_write_bytes(claimed / "job.json", edited)
        if is_folder(claimed) or self._has_media(job):
            self._reopen(job, claimed, at_ms)
        else:
            self._refuse_retry(job, INPUTS_GONE, at_ms)

    def _has_media(self, job: Job) -> bool:
        """Whether a job without its inputs can be reopened: its media are elsewhere."""
        try:
            found = self.media.find(job.spec, self.folders.claimed / job.uid) if job.spec else None
        except BadJob:
            return False
        return found is not None and not isinstance(found, MissingMedia)

    def _refuse_retry(self, job: Job, bad: BadJob, at_ms: int) -> None:
        """Record why the job can't be retried, in its row and in failed/NAME/error.json."""
        self.ledger.transitions.refuse_reopen(job, make_job_error(bad), at_ms=at_ms)
        log.error("%s is not retried (%s): %s", job.name, bad.code, bad.message)

    def _reopen(self, job: Job, claimed: Path, at_ms: int) -> None:
        """Move a finished job back to waiting, with its job file as it is now."""
        text = read_limited(claimed / "job.json", self.limit)
        try:
            spec = parse_job(text, self.limit) if text is not None else job.spec
        except BadJob as bad:
            self._refuse_retry(job, bad, at_ms)
            return
        if spec is not None:
            self._restore_media(job, spec)
            kept = spec.model_copy(update={"batch": job.spec.batch}) if job.spec else spec
            self.ledger.transitions.reopen(job, kept, at_ms=at_ms)
            self._unsettled.add(job.uid)

    def _restore_media(self, job: Job, spec: JobSpec) -> None:
        """Put media that a job shared with others, and that were filed away with them, back into the inbox."""
        asked = {spec.avatar, *spec.media_names.values()}
        for medium in job.media.values():
            given, filed = str(medium["given"]), Path(medium["path"])
            is_filed = any(filed.is_relative_to(place) for place in (self.folders.archive, self.folders.failed))
            is_plain = given == PurePath(given.replace("\\", "/")).name
            if given in asked and is_filed and is_plain and take_fingerprint(filed) == Fingerprint.from_dict(medium):
                with suppress(OSError):
                    outbox.restore_medium(filed, self.folders.inbox / spec.batch, given)


def list_given_names(job: Job) -> list[str]:
    """Return the names, folded and without their folders, of the media that a job gives."""
    given = [name for name in (job.spec.avatar, *job.spec.media_names.values()) if name] if job.spec else []
    return [fold_name(name.replace("\\", "/").rpartition("/")[2]) for name in given]


def is_job_text(data: bytes) -> bool:
    """Whether a file holds the beginning of a JSON object, and not only what a program left there to make it."""
    return data.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"{")


def make_job_error(bad: BadJob) -> JobError:
    return JobError(bad.code, bad.message, bad.hint)


def renew_fingerprint(medium: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a medium with the fingerprint of a copy: of its size, and of its time to the second.

    Backups such as tar keep no more of a time.
    """
    found, known = take_fingerprint(Path(medium["path"])), Fingerprint.from_dict(medium)
    if found is None or (found.size, found.mtime_ns // NS_PER_S) != (known.size, known.mtime_ns // NS_PER_S):
        return medium
    return {**medium, **asdict(found)}
