"""The publisher: moves verified results into the outbox and ends their jobs.

A crash may cut off each step, and the next start does it again: the row says what has to be true.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.fs import catch, discard, is_file, is_folder, map_parallel
from agent.fs.folders import list_names, sync
from agent.jobs.states import JobState
from agent.ledger.job import Job, change_job
from agent.ledger.ledger import Ledger
from agent.results import outbox
from agent.results.quality import list_warnings
from agent.results.reconcile import ShareMark
from agent.results.records import make_result_record
from agent.results.signing import POLL_S, Signer
from agent.results.video_file import find_video
from agent.scheduler.attempt import Attempt, FinishedAttempt
from agent.service.log import make_extra
from agent.service.problems import Problems
from agent.settings import Folders, QualitySettings
from gpu_pool.failpoints import failpoint

log = logging.getLogger("musedrop")

PUBLISH_RETRY_S = 5.0
GATHER_S = 0.05
"""How long a result waits for others that are nearly done: publishing several costs little more than one."""


@dataclass(frozen=True, slots=True)
class PendingResult:
    """A verified video in the staging folder, and when it is to be published, in monotonic seconds.

    `name`: what it will be called in the outbox, as its row says; "" if that is to be chosen.
    """

    job: Job
    staging: Path
    due_s: float
    name: str = ""
    is_signed: bool = False


class Publisher:
    """`pending` holds by the uid of their jobs the results that are not in the outbox yet."""

    def __init__(
        self,
        folders: Folders,
        ledger: Ledger,
        problems: Problems,
        clock: Clock,
        links_video: Callable[[], bool] = lambda: False,
        limits: Callable[[], QualitySettings] = QualitySettings,
        signer: Signer | None = None,
    ) -> None:
        """`links_video`: whether each video is also a file beside its folder, now. `limits`: of the quality, now.

        `signer`: signs what is published; None: nothing is signed.
        """
        self._signer = signer
        self._links_video, self._limits = links_video, limits
        self.folders, self.ledger, self.problems, self.clock = folders, ledger, problems, clock
        self.pending: dict[str, PendingResult] = {}
        self._names, self._mark = outbox.FolderNames(clock.now_s), ShareMark(folders, ledger)

    @property
    def next_due_s(self) -> float:
        """When the next result is to be published, in monotonic seconds."""
        return min((result.due_s for result in self.pending.values()), default=float("inf"))

    # in --------------------------------------------------------------------------------------------------------------

    def add(self, finished: FinishedAttempt, *, delay_s: float = 0.0) -> None:
        """Take over the verified video of an attempt; it is published when the delay is over."""
        self._add(finished.attempt, dict(finished.facts), delay_s, {})

    def add_copy(self, attempt: Attempt, earlier: Job) -> bool:
        """Take the result of an earlier job for this attempt; False where it was changed or can't be read."""
        folder, facts = self.folders.outbox / (earlier.result or ""), dict(earlier.facts or {})
        if not outbox.is_intact(folder, earlier.uid, facts.get("video_bytes", 0)):
            return False
        try:
            outbox.copy_result(folder, Path(attempt.request.out))
        except OSError as error:
            log.warning("%s: the result %s can't be copied: %s", attempt.job.name, folder, error.strerror)
            return False
        reason = f'the result of the earlier job "{earlier.name}" of the same id and content'
        columns = {"outline": earlier.outline, "engine": earlier.engine, "engine_reason": reason}
        self._add(attempt, {**facts, "from_cache": True, "cached_from": earlier.result}, 0.0, columns)
        return True

    def _add(self, attempt: Attempt, facts: dict[str, Any], delay_s: float, columns: dict[str, Any]) -> None:
        staging = Path(attempt.request.out)
        facts = {"devices": attempt.devices, "kind": attempt.kind, "spans": len(attempt.render_spans), **facts}
        facts |= {"stage_seconds": attempt.stage_seconds, "video_bytes": outbox.get_size(find_video(staging))}
        facts["warnings"] = list_warnings(facts.get("quality"), self._limits())
        columns = {**attempt.take_columns(), **columns, "stage": "publish", "facts": facts, "device": None}
        name = ""
        if not (attempt.job.spec and attempt.job.spec.batch):
            with suppress(OSError):  # what can't be read now is a problem when it is to be published
                columns["result"] = name = self._names.reserve(self.folders.outbox, attempt.job.name)
        self.ledger.update(attempt.job.uid, **columns)
        known = {"outline": attempt.inspection.to_dict() if attempt.inspection else None, **columns}
        job = change_job(attempt.job, known)
        self.pending[job.uid] = PendingResult(job, staging, self.clock.now_s() + delay_s, name)

    def discard(self, uid: str) -> None:
        """Publish no result of this job, if there is one."""
        if result := self.pending.pop(uid, None):
            discard(result.staging)
            self._names.forget_all()

    # out -------------------------------------------------------------------------------------------------------------

    def publish(self, *, early_s: float = 0.0) -> None:
        """Publish what is due, and with it what is due soon. An outbox that can't be written is tried again later.

        `early_s`: publish what is due in so many seconds, too.
        """
        now_s = self.clock.now_s() + early_s
        if self._signer is not None and not self.pending:
            self._signer.collect(now_s)  # the program that makes the key
        if self.next_due_s > now_s:
            return
        due = self._sign([result for result in self.pending.values() if result.due_s <= now_s + GATHER_S], now_s)
        if not due:
            return
        at_ms = self.clock.at_ms()
        try:
            mark = self._mark.change()
            with self.ledger.together():
                named = [(result, result.name or self._reserve_name(result.job)) for result in due]
        except OSError as unreadable:
            for result in due:
                self._retry_later(result, unreadable)
            return
        errors = self._move_out(named, at_ms)
        moved = [entry for entry, error in zip(named, errors, strict=True) if error is None]
        for (result, _), error in zip(named, errors, strict=True):
            if error is not None:
                self._handle_error(result, error)
        if moved:
            self._finish(moved, mark)

    def _sign(self, due: list[PendingResult], now_s: float) -> list[PendingResult]:
        """Have results signed; return those that are signed, or can't be."""
        signer = self._signer
        if signer is None or not (signer.is_on or signer.is_running):
            return due
        ended = signer.collect(now_s)
        done = [self._take_signed(result, ended[result.staging.name]) for result in due if result.staging.name in ended]
        settled = [result for result in due if result.is_signed]
        waiting = [result for result in due if not result.is_signed and result.staging.name not in ended]
        problem = signer.problem
        if waiting and signer.is_on and not signer.is_running and not problem:
            try:
                signer.begin(((result.staging, make_result_record(result.job, "", 0)) for result in waiting), now_s)
            except OSError as error:
                problem = str(error.strerror)
        if problem:
            self.problems.set("credentials", f"results can't be signed: {problem}")
            signer.problem = ""
        wait_s = POLL_S if signer.is_running else PUBLISH_RETRY_S
        for result in waiting:
            self.pending[result.job.uid] = replace(result, due_s=now_s + wait_s)
        return [*settled, *done]

    def _take_signed(self, result: PendingResult, report: dict[str, Any]) -> PendingResult:
        """Note in the row of a job what its signed video says, or why it is not signed."""
        failpoint("collected")
        problem = report.pop("problem", "")
        facts = {**(result.job.facts or {}), **report}
        self.problems.set("credentials", problem and f"results have no content credentials: {problem}")
        if problem:
            log.error("%s is published without credentials: %s", result.job.name, problem)
            warnings = list_warnings(facts.get("quality"), self._limits())  # those of the row may have it already
            facts["warnings"] = [*warnings, f"the video has no content credentials: {problem}"]
        job = self.ledger.update_and_read(result.job.uid, facts=facts)
        self.pending[job.uid] = signed = replace(result, job=job, is_signed=True)
        failpoint("credentials")
        if self._signer is not None:
            self._signer.forget(result.staging.name)
        return signed

    def _reserve_name(self, job: Job) -> str:
        batch = job.spec.batch if job.spec else ""
        folder = outbox.choose_folder(self.folders.outbox, batch) if batch else self.folders.outbox
        name = self._names.reserve(folder, job.name)
        result = str((folder / name).relative_to(self.folders.outbox))
        self.ledger.update(job.uid, result=result)
        return result

    def _move_out(self, named: list[tuple[PendingResult, str]], at_ms: int) -> list[OSError | None]:
        """Rename results into the outbox; return of each why that is not possible now.

        Only the flushes run on threads: with all the rest, threads would wait for each other.
        """
        staged = [result.staging for result, _ in named]
        records = [make_result_record(result.job, name, at_ms) for result, name in named]
        written = [catch(outbox.write_record, *one) for one in zip(staged, records, strict=True)]
        flushed = map_parallel(flush_written, list(zip(staged, written, strict=True)))
        targets = [self.folders.outbox / name for _, name in named]
        return [
            error or catch(outbox.move_result, folder, target)
            for folder, target, error in zip(staged, targets, flushed, strict=True)
        ]

    def _finish(self, moved: list[tuple[PendingResult, str]], mark: str) -> None:
        """End the jobs whose results were moved, once the renames are on disk."""
        try:
            for folder in {self.folders.outbox, *((self.folders.outbox / name).parent for _, name in moved)}:
                sync(folder)
        except OSError as error:
            for result, name in moved:
                self._retry_later(replace(result, staging=self.folders.outbox / name), error)
            return
        failpoint("published")
        self.problems.set("outbox", "")
        with self.ledger.together():
            self._mark.record(mark)
            for result, name in moved:
                self._close(result.job, name)

    def _handle_error(self, result: PendingResult, error: OSError) -> None:
        """Find out what became of a result that could not be renamed, and do what is left."""
        self._names.forget_all()
        job = self.ledger.job(result.job.uid)
        if job is not None and self._is_published(job):
            self._close(job, job.result or "")
        elif is_folder(result.staging.parent) and not os.path.lexists(find_video(result.staging)):
            del self.pending[result.job.uid]
            self._requeue(result.job, "the assembled video was gone from the share")
        else:
            self._retry_later(result, error)

    def _retry_later(self, result: PendingResult, error: OSError) -> None:
        self.problems.set("outbox", f"the outbox can't be written: {error.strerror}")
        self.pending[result.job.uid] = replace(result, due_s=self.clock.now_s() + PUBLISH_RETRY_S, name="")
        self.ledger.update(result.job.uid, waiting_for=self.problems["outbox"])

    def _is_published(self, job: Job) -> bool:
        """Whether the result is in the outbox: a rename may be done though an error or a crash came."""
        return bool(job.result) and outbox.is_published(self.folders.outbox, job.result or "", job.uid)

    def _close(self, job: Job, name: str) -> None:
        self.pending.pop(job.uid, None)
        if self._links_video():
            self._link_video(job, name)
        self.ledger.transitions.finish(job, name, at_ms=self.clock.at_ms())
        log.info("%s is done: outbox/%s", job.name, name, extra=make_extra(job))

    def _link_video(self, job: Job, name: str) -> None:
        """Put a hard link to the video beside its folder; what is there already stays."""
        try:
            outbox.link_video(self.folders.outbox, name)
        except OSError as error:
            log.warning(
                "%s: the video of outbox/%s can't be linked: %s", job.name, name, error.strerror, extra=make_extra(job)
            )

    def _requeue(self, job: Job, why: str) -> None:
        self.ledger.transitions.requeue(job, why, at_ms=self.clock.at_ms())

    # after a crash ---------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Settle the jobs that were running when the last daemon ended, and clear the staging folder."""
        for job in self.ledger.list_in_state(JobState.RUNNING):
            staging = self.folders.staging / f"{job.uid}-{job.run_token}"
            if job.cancel_requested:
                self.ledger.transitions.cancel(job, at_ms=self.clock.at_ms())
            elif job.stage == "publish" and self._is_published(job):
                self._close(job, job.result or "")
            elif job.stage == "publish" and is_file(find_video(staging)):
                self.pending[job.uid] = PendingResult(job, staging, self.clock.now_s())
            else:
                self._requeue(job, "the daemon was stopped while it ran")
        kept = {result.staging.name for result in self.pending.values()}
        if self._signer is not None:
            self._signer.discard_others(kept)
        try:
            leftovers = [self.folders.staging / name for name in list_names(self.folders.staging) if name not in kept]
        except OSError as error:
            log.warning("the staging folder %s can't be read: %s", self.folders.staging, error.strerror)
            return
        for leftover in leftovers:
            discard(leftover)

    def make_signing_key(self) -> None:
        """Have the key of this installation made, the first time; else the first result that is signed makes it."""
        if self._signer is not None:
            try:
                self._signer.make_key(self.clock.now_s())
            except OSError as error:
                log.warning("the key of the content credentials can't be made now: %s", error.strerror)


def flush_written(entry: tuple[Path, OSError | None]) -> OSError | None:
    """Flush a staged result, unless it could not be written; return the error."""
    staging, error = entry
    return error or catch(outbox.flush_record, staging)
