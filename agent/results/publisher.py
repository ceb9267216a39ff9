"""The end of a job: publish its result, then let its files follow its row.

Everything here may be cut off by a crash and is simply done again: the row says what has to be true.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.fs import Fingerprint, discard, map_parallel, move_into, sync, take_fingerprint
from agent.jobs.states import JobState
from agent.ledger.job import Job
from agent.ledger.ledger import Ledger
from agent.results import outbox
from agent.results.outbox import iso
from agent.scheduler.attempt import Run
from agent.service.log import make_extra
from agent.service.problems import Troubles
from agent.settings import Settings
from gpu_pool.failpoints import failpoint

log = logging.getLogger("musedrop")

PUBLISH_RETRY_S = 5.0
GATHER_S = 0.05
"""A result waits so long for others that are nearly done: publishing several costs little more than one."""
BATCH = 64
"""Finished jobs whose files are moved in one turn."""
RESULT_VERSION = 1


class Closing:
    def __init__(self, settings: Settings, ledger: Ledger, troubles: Troubles):
        self.settings, self.ledger, self.troubles = settings, ledger, troubles
        self.unpublished: dict[str, tuple[Job, Path, float]] = {}
        self.names = outbox.Names()

    # results ---------------------------------------------------------------------------------------------------------

    def repeat(self, run: Run, earlier: Job, now: float) -> bool:
        """Take the result of an earlier job of the same id and content; False where it was changed or taken away."""
        folder = self.settings.folders.outbox / (earlier.result or "")
        facts = dict(earlier.facts or {})
        if not outbox.intact(folder, earlier.uid, facts.get("video_bytes", 0)):
            return False
        outbox.copy_result(folder, Path(run.request.out))
        reason = f'the result of the earlier job "{earlier.name}" of the same id and content'
        same = {"outline": earlier.outline, "engine": earlier.engine, "engine_reason": reason}
        self.ledger.update(run.job.uid, **same)
        self.assembled(run, {**facts, "from_cache": True, "cached_from": earlier.result}, now)
        return True

    def assembled(self, run: Run, facts: dict[str, Any], now: float) -> None:
        """A worker has verified the mp4 of this run: write down what it will be called, then publish."""
        video_bytes = outbox.size_of(Path(run.request.out) / "result.mp4")
        facts = {"devices": run.devices, "kind": run.kind, **facts}
        facts |= {"stage_seconds": run.seconds, "video_bytes": video_bytes}
        self.ledger.update(run.job.uid, stage="publish", facts=facts, stage_seconds=run.seconds, device=None)
        job = self.ledger.job(run.job.uid)
        assert job is not None  # noqa: S101 - rows are never deleted while they run
        self.unpublished[job.uid] = (job, Path(run.request.out), now)

    def publish(self, now: float, at: int) -> None:
        """Publish what is due, and what is soon; an outbox that can't be written is tried again, the jobs are not to
        blame."""
        if all(when > now for _, _, when in self.unpublished.values()):
            return
        due = [entry for entry in self.unpublished.values() if entry[2] <= now + GATHER_S]
        folder = self.settings.folders.outbox
        with self.ledger.together():
            named = [(job, staging, self._name(job)) for job, staging, _ in due]
        errors = map_parallel(lambda entry: self._move_out(*entry, at), named)
        moved = [(job, name) for (job, _, name), error in zip(named, errors, strict=True) if error is None]
        for (job, staging, _), error in zip(named, errors, strict=True):
            if error is not None:
                self._not_moved(job, staging, error, now, at)
        if not moved:
            return
        try:
            sync(folder)
        except OSError as error:
            for job, name in moved:
                self._put_off(job, folder / name, error, now)
            return
        failpoint("published")
        self.troubles.tell("outbox", "")
        with self.ledger.together():
            for job, name in moved:
                del self.unpublished[job.uid]
                self.close_done(job, name, at)

    def withhold(self, uid: str) -> None:
        """Publish no result of this job, though it may be there."""
        if entry := self.unpublished.pop(uid, None):
            discard(entry[1])

    def _name(self, job: Job) -> str:
        name = self.names.free(self.settings.folders.outbox, job.name)
        self.ledger.update(job.uid, result=name)
        return name

    def _move_out(self, job: Job, staging: Path, name: str, at: int) -> OSError | None:
        """Rename the result into the outbox; returns why that is not possible now."""
        try:
            outbox.publish(staging, self.settings.folders.outbox, name, result_record(job, name, at))
        except OSError as error:
            return error
        return None

    def _not_moved(self, job: Job, staging: Path, error: OSError, now: float, at: int) -> None:
        self.names.forget(self.settings.folders.outbox)
        if not self._appeared(job, at) and not self._vanished(job, staging, at):
            self._put_off(job, staging, error, now)

    def _put_off(self, job: Job, staging: Path, error: OSError, now: float) -> None:
        self.troubles.tell("outbox", f"the outbox can't be written: {error.strerror}")
        self.unpublished[job.uid] = (job, staging, now + PUBLISH_RETRY_S)
        self.ledger.update(job.uid, waiting_for=self.troubles["outbox"])

    def _appeared(self, job: Job, at: int) -> bool:
        """Whether the rename was done before the error came; then the job is closed."""
        written = self.ledger.job(job.uid)
        name = written.result if written else None
        if not name or not outbox.published(self.settings.folders.outbox, name, job.uid):
            return False
        del self.unpublished[job.uid]
        self.close_done(job, name, at)
        return True

    def _vanished(self, job: Job, staging: Path, at: int) -> bool:
        """Whether the share came back without the assembled video; then it is assembled again."""
        if not staging.parent.is_dir() or (staging / "result.mp4").is_file():
            return False
        del self.unpublished[job.uid]
        self.requeue(job, at, "the assembled video was gone from the share")
        return True

    def close_done(self, job: Job, name: str, at: int) -> None:
        self.ledger.transitions.finish(job, name, at_ms=at)
        log.info("%s is done: outbox/%s", job.name, name, extra=make_extra(job))

    def recover(self, at: int, now: float) -> None:
        """After a start: the jobs that were running belong to nobody now."""
        folders = self.settings.folders
        for job in self.ledger.in_state(JobState.RUNNING):
            staging = folders.staging / f"{job.uid}-{job.run_token}"
            if job.cancel_requested:
                self.ledger.transitions.cancel(job, at_ms=at)
            elif job.stage == "publish" and job.result and outbox.published(folders.outbox, job.result, job.uid):
                self.close_done(job, job.result, at)
            elif job.stage == "publish" and (staging / "result.mp4").is_file():
                self.unpublished[job.uid] = (job, staging, now)
            else:
                self.requeue(job, at, "the daemon was stopped while it ran")
        kept = {staging.name for _, staging, _ in self.unpublished.values()}
        for leftover in folders.staging.iterdir():
            if leftover.name not in kept:
                discard(leftover)

    def requeue(self, job: Job, at: int, why: str) -> None:
        self.ledger.transitions.requeue(job, why, at_ms=at)

    # files follow rows -----------------------------------------------------------------------------------------------

    def tidy(self, at: int) -> bool:
        """Move the inputs of finished jobs where they belong and drop their work folders. True if there may be more.

        The targets are written down first, so that a crash after the rename doesn't file them twice.
        """
        jobs = self.ledger.untidy(BATCH)
        if not jobs:
            return False
        with self.ledger.together():
            places = [(job, self._target(job, at)) for job in jobs]
        try:
            map_parallel(lambda place: self._put_in_place(*place), places)
            for folder in {target.parent for _, target in places if target is not None}:
                sync(folder)
        except OSError as error:
            self.troubles.tell("archive", f"the inputs of finished jobs can't be filed away: {error.strerror}")
            return False
        self.troubles.tell("archive", "")
        with self.ledger.together():
            for job in jobs:
                self.ledger.update(job.uid, tidied=1, swept=0 if job.media else 1)
        return len(jobs) == BATCH

    def _put_in_place(self, job: Job, target: Path | None) -> None:
        discard(self.settings.folders.work / job.uid)
        if target is not None:
            self._file_away(job, target)

    def _target(self, job: Job, at: int) -> Path | None:
        """Where the job's inputs go; None if they went there already."""
        inputs = self.settings.folders.claimed / job.uid
        if job.inputs and Path(job.inputs).is_dir() and not inputs.exists():
            return None
        folder = self._last_place(job, at)
        target = folder / self.names.free(folder, job.name)
        self.ledger.update(job.uid, inputs=str(target))
        return target

    def _file_away(self, job: Job, target: Path) -> None:
        inputs = self.settings.folders.claimed / job.uid
        if job.state is not JobState.DONE:
            outbox.fail(inputs, target, error_record(job), job.spec.to_json_text() if job.spec else "{}\n")
        elif inputs.is_dir():
            outbox.put_away(inputs, target)

    def _last_place(self, job: Job, at: int) -> Path:
        if job.state is not JobState.DONE:
            return self.settings.folders.failed
        return self.settings.folders.archive / f"{datetime.fromtimestamp((job.finished_ms or at) / 1000, UTC):%Y-%m-%d}"

    def sweep(self, at: int) -> None:
        """Move media that job files named out of the inbox, once nobody has needed them for a while."""
        oldest_use = at - int(1000 * self.settings.inbox.keep_media_s)
        if not self.ledger.resting(oldest_use):
            return
        unswept = self.ledger.unswept()
        resting = [job for job in unswept if job.inputs and (job.finished_ms or at) <= oldest_use]
        done_with = {job.id for job in resting}
        in_use = {mark for job in unswept if job.id not in done_with for mark in marks_of(job)}
        for job in resting:
            if in_use.isdisjoint(marks_of(job)):
                self._sweep(job)

    def _sweep(self, job: Job) -> None:
        for medium in job.media.values():
            path = Path(medium["path"])
            inside = path.is_relative_to(self.settings.folders.inbox.resolve())
            if inside and take_fingerprint(path) == mark_of(medium):
                move_into(path, Path(job.inputs or ""), path.name)
        self.ledger.update(job.uid, swept=1)


def mark_of(medium: dict[str, Any]) -> Fingerprint:
    return Fingerprint(medium["inode"], medium["size"], medium["mtime_ns"])


def marks_of(job: Job) -> set[Fingerprint]:
    return {mark_of(medium) for medium in job.media.values()}


def result_record(job: Job, name: str, at: int) -> dict[str, Any]:
    """What outbox/NAME/result.json says; documented in docs/result.md."""
    outline, facts, spec = job.outline or {}, dict(job.facts or {}), job.spec
    notes = [*(spec.notes if spec else ()), *outline.get("notes", ()), *facts.pop("notes", ())]
    return {
        "version": RESULT_VERSION,
        "name": job.name,
        "result": name,
        "uid": job.uid,
        "id": job.client_id,
        "state": "done",
        "video": "result.mp4",
        "preview": "preview.jpg",
        "engine": job.engine,
        "engine_reason": job.engine_reason,
        "frames": outline.get("frames"),
        "fps": outline.get("fps"),
        "width": outline.get("width"),
        "height": outline.get("height"),
        "duration_s": outline.get("duration_s"),
        "encoder": outline.get("encoder"),
        "avatar": {"given": given(job, "avatar"), "sha256": outline.get("avatar_sha256")},
        "audio": {"given": given(job, "audio"), "sha256": outline.get("audio_sha256")},
        "options": spec.options if spec else {},
        "notes": notes,
        "attempt": job.attempt,
        "interruptions": job.interruptions,
        "from_cache": False,
        **facts,
        "created_at": iso(job.created_ms),
        "started_at": iso(job.started_ms),
        "finished_at": iso(at),
    }


def error_record(job: Job) -> dict[str, Any]:
    """What failed/NAME/error.json says; documented in docs/errors.md."""
    cancelled = job.state is JobState.CANCELLED
    return {
        "version": RESULT_VERSION,
        "name": job.name,
        "uid": job.uid,
        "id": job.client_id,
        "state": str(job.state),
        "code": "cancelled" if cancelled else job.error_code,
        "message": "the job was cancelled" if cancelled else job.error_message,
        "hint": f"`musedrop retry {job.name}` runs it again" if cancelled else job.error_hint,
        "retry": cancelled or job.error_retry,
        "stage": job.stage,
        "engine": job.engine,
        "attempt": job.attempt,
        "created_at": iso(job.created_ms),
        "finished_at": iso(job.finished_ms),
    }


def given(job: Job, role: str) -> str:
    return str(job.media[role]["given"])
