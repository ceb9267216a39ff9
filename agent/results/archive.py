"""The archiver: the files of a finished job follow its row.

A crash may cut off each step, and the next turn does it again: the row says what has to be true.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from agent.clock import Clock
from agent.fs import Fingerprint, discard, map_parallel, move_into, sync, take_fingerprint
from agent.jobs.states import JobState
from agent.ledger.job import Job
from agent.ledger.ledger import Ledger
from agent.results import outbox
from agent.results.records import make_error_record
from agent.service.problems import Problems
from agent.settings import CurrentSettings

BATCH = 64
"""Finished jobs whose files are moved in one turn."""


class Archiver:
    """Moves inputs to archive/ and failed/, and media that jobs no longer need out of the inbox."""

    def __init__(self, settings: CurrentSettings, ledger: Ledger, problems: Problems, clock: Clock) -> None:
        self.settings, self.ledger, self.problems, self.clock = settings, ledger, problems, clock
        self.folders = settings.current.folders
        self._names = outbox.FolderNames(clock.now_s)

    def archive_inputs(self) -> bool:
        """Move the inputs of finished jobs to their last place and delete their work folders.

        The targets are written into the rows first, so that a crash after the rename doesn't archive them twice.
        Returns whether there may be more.
        """
        jobs = self.ledger.list_unarchived(BATCH)
        if not jobs:
            return False
        with self.ledger.together():
            targets = [(job, self._choose_target(job)) for job in jobs]
        try:
            map_parallel(lambda entry: self._archive(*entry), targets)
            for folder in {target.parent for _, target in targets if target is not None}:
                sync(folder)
        except OSError as error:
            self.problems.set("archive", f"the inputs of finished jobs can't be filed away: {error.strerror}")
            return False
        self.problems.set("archive", "")
        with self.ledger.together():
            for job in jobs:
                self.ledger.update(job.uid, tidied=1, swept=0 if job.media else 1)
        return len(jobs) == BATCH

    def _choose_target(self, job: Job) -> Path | None:
        """Return where the job's inputs go, and write it into the row; None if they are there already."""
        if job.inputs and Path(job.inputs).is_dir() and not (self.folders.claimed / job.uid).exists():
            return None
        folder = self.folders.failed
        if job.state is JobState.DONE:
            ended_ms = job.finished_ms or self.clock.at_ms()
            folder = self.folders.archive / f"{datetime.fromtimestamp(ended_ms / 1000, UTC):%Y-%m-%d}"
        target = folder / self._names.reserve(folder, job.name)
        self.ledger.update(job.uid, inputs=str(target))
        return target

    def _archive(self, job: Job, target: Path | None) -> None:
        discard(self.folders.work / job.uid)
        inputs = self.folders.claimed / job.uid
        if target is None:
            return
        if job.state is not JobState.DONE:
            job_file = job.spec.to_json_text() if job.spec else "{}\n"
            outbox.move_failed_inputs(inputs, target, make_error_record(job), job_file)
        elif inputs.is_dir():
            outbox.move_inputs(inputs, target)

    def collect_media(self) -> None:
        """Move media that job files named out of the inbox, when no job has needed them for `keep_media_s`."""
        now_ms = self.clock.at_ms()
        last_use_ms = now_ms - int(1000 * self.settings.current.inbox.keep_media_s)
        if not self.ledger.has_collectable(last_use_ms):
            return
        jobs = self.ledger.list_with_media()
        rested = [job for job in jobs if job.inputs and (job.finished_ms or now_ms) <= last_use_ms]
        rested_ids = {job.id for job in rested}
        in_use = {mark for job in jobs if job.id not in rested_ids for mark in job.fingerprints}
        unused = [job for job in rested if in_use.isdisjoint(job.fingerprints)]
        with self.ledger.together():
            for job in unused[:BATCH]:
                self._collect(job)

    def _collect(self, job: Job) -> None:
        for medium in job.media.values():
            path = Path(medium["path"])
            is_dropped = path.is_relative_to(self.folders.inbox.resolve())
            if is_dropped and take_fingerprint(path) == Fingerprint.from_dict(medium):
                move_into(path, Path(job.inputs or ""), path.name)
        self.ledger.update(job.uid, swept=1)
