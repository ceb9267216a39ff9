"""The archiver: the files of a finished job follow its row.

A crash may cut off each step, and the next turn does it again: the row says what has to be true.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.fs import (
    Fingerprint,
    catch,
    discard_later,
    follow_links,
    is_folder,
    map_parallel,
    move_into,
    take_fingerprint,
)
from agent.fs.folders import move, sync
from agent.jobs.spec import TRIAL
from agent.jobs.states import JobState
from agent.ledger.job import Job
from agent.ledger.ledger import Ledger
from agent.results import outbox
from agent.results.reconcile import ShareMark
from agent.results.records import make_error_record
from agent.service.clock_history import ClockHistory
from agent.service.entry_problems import EntryProblems
from agent.service.problems import Problems
from agent.settings import CurrentSettings

BATCH = 64
"""Finished jobs whose files are moved in one turn."""


class Archiver:
    """Moves inputs to archive/ and failed/, and media that jobs no longer need out of the inbox."""

    def __init__(
        self,
        settings: CurrentSettings,
        ledger: Ledger,
        problems: Problems,
        clock: Clock,
        entries: EntryProblems | None = None,
        history: ClockHistory | None = None,
    ) -> None:
        self.settings, self.ledger, self.problems, self.clock = settings, ledger, problems, clock
        self.folders = settings.current.folders
        self._work = self.folders.work  # resolves links
        self._history = history or ClockHistory(ledger, clock)
        self.entries = entries or EntryProblems(self.folders.share, clock.now_s)
        self._names, self._mark = outbox.FolderNames(clock.now_s), ShareMark(self.folders, ledger)

    def archive_inputs(self) -> bool:
        """Move the inputs of finished jobs to their last place and delete their work folders.

        The targets are written into the rows first, so that a crash after the rename doesn't archive them twice.
        Returns whether there may be more.
        """
        listed = self.ledger.list_unarchived(BATCH + self.entries.count)
        jobs = [job for job in listed if not self.entries.is_blocked(self.folders.claimed / job.uid)][:BATCH]
        if not jobs:
            return False
        try:
            mark = self._mark.change()
            moved = self._move_away(jobs)
        except OSError as error:
            self.problems.set("archive", f"the inputs of finished jobs can't be filed away: {error.strerror}")
            return False
        self.problems.set("archive", "" if moved else self._describe_failure(jobs[0]))
        with self.ledger.together():
            self._mark.record(mark)
            for job in moved:
                self.ledger.update(job.uid, tidied=1, swept=0 if job.media else 1)
        return len(jobs) == BATCH

    def _move_away(self, jobs: list[Job]) -> list[Job]:
        """Return the jobs whose files are in their last place, and are so on the disk. Raises OSError."""
        with self.ledger.together():
            chosen = [(job, target) for job in jobs for target in self._try_target(job)]
        chosen.sort(key=lambda entry: entry[0].state is JobState.DONE)
        failed = [entry for entry in chosen if entry[0].state is not JobState.DONE]  # have files to be flushed
        errors = map_parallel(lambda entry: catch(self._archive, *entry), failed)
        errors += [catch(self._archive, *entry) for entry in chosen[len(failed) :]]
        moved = [job for (job, _), error in zip(chosen, errors, strict=True) if self._note_end(job, error)]
        for folder in {target.parent for job, target in chosen if target is not None and job in moved}:
            sync(folder)
        return moved

    def _try_target(self, job: Job) -> Iterator[Path | None]:
        """Yield where the job's inputs go; nothing, and the problem is noted, where that can't be found out."""
        try:
            target = self._choose_target(job)
        except OSError as error:
            self._note(job, error)
            return
        yield target

    def _note_end(self, job: Job, error: OSError | None) -> bool:
        """Return whether the job's files are in their last place; else the problem is noted."""
        if error is None:
            self.entries.clear(self.folders.claimed / job.uid)
        else:
            self._note(job, error)
        return error is None

    def _describe_failure(self, job: Job) -> str:
        reason = self.entries.reason_of(self.folders.claimed / job.uid)
        return f"the inputs of finished jobs can't be filed away: {reason}"

    def _note(self, job: Job, error: OSError) -> None:
        if self.entries.note(self.folders.claimed / job.uid, "be filed away", error):
            self.ledger.record_event(job.uid, "problem", self.clock.at_ms(), f"its inputs can't be filed away: {error}")

    def _choose_target(self, job: Job) -> Path | None:
        """Return where the job's inputs go, and write it into the row; None if they are there already."""
        if job.inputs and is_folder(Path(job.inputs)) and not os.path.lexists(self.folders.claimed / job.uid):
            return None
        folder = self.folders.failed
        if job.state is JobState.DONE:
            ended_ms = job.finished_ms or self.clock.at_ms()
            folder = self.folders.archive / f"{datetime.fromtimestamp(ended_ms / 1000, UTC):%Y-%m-%d}"
        target = folder / self._names.reserve(folder, job.name)
        self.ledger.update(job.uid, inputs=str(target))
        return target

    def _archive(self, job: Job, target: Path | None) -> None:
        """Move the job's files to their last place. Runs on any thread: no ledger here. Raises OSError."""
        discard_later(self._work / job.uid)
        inputs = self.folders.claimed / job.uid
        if job.submitter == TRIAL and job.result:
            outbox.remove_result(self.folders.outbox, job.result, job.uid)
        if target is None:
            return
        if job.state is not JobState.DONE:
            job_file = job.spec.to_json_text() if job.spec else "{}\n"
            outbox.move_failed_inputs(inputs, target, make_error_record(job), job_file)
        elif is_folder(inputs):
            outbox.move_inputs(inputs, target)

    def collect_media(self) -> None:
        """Move media that job files named out of the inbox, when no job has needed them for `keep_media_s`."""
        keep_s = self.settings.current.inbox.keep_media_s
        if not self.ledger.has_collectable(self._history.latest_ms(keep_s)):
            return
        users = self.ledger.list_media_users()
        rested = [user for user in users if user.filed_ms and self._history.elapsed_s(user.filed_ms) >= keep_s]
        rested_uids = {user.uid for user in rested}
        in_use = {mark for user in users if user.uid not in rested_uids for mark in user.fingerprints}
        unused = (user.uid for user in rested if in_use.isdisjoint(user.fingerprints))
        with self.ledger.together():
            for _ in islice(filter(None, map(self._collect, unused)), BATCH):
                pass

    def _collect(self, uid: str) -> bool:
        """Move the media of a job out of the inbox; return whether there was anything to do."""
        job = self.ledger.job(uid)
        if job is None:
            return False
        dropped = [medium for medium in job.media.values() if self._may_be_dropped(medium)]
        paths = [Path(medium["path"]) for medium in dropped]
        free = [medium for medium in dropped if not self.entries.is_blocked(Path(medium["path"]))]
        for medium in free:
            path = Path(medium["path"])
            with self.entries.guard(path, "be filed away"):
                if take_fingerprint(path, strict=True) == Fingerprint.from_dict(medium):
                    self.ledger.note_moved_medium(path, file_away(medium, Path(job.inputs or "")))
        if not any(path in self.entries for path in paths):
            self.ledger.update(job.uid, swept=1)
            return True
        return bool(free)

    def _may_be_dropped(self, medium: Mapping[str, Any]) -> bool:
        """Whether a medium is still in the inbox, as it was when the job was queued, as far as that can be known."""
        path = Path(medium["path"])
        if not path.is_relative_to(follow_links(self.folders.inbox)):
            return False
        try:
            return take_fingerprint(path, strict=True) == Fingerprint.from_dict(medium)
        except OSError:
            return True


def file_away(medium: Mapping[str, Any], folder: Path) -> Path:
    """Move a medium into a folder; one that has just taken its place goes back, unless a third one is there.

    Return where it would be in that folder.
    """
    path = Path(medium["path"])
    moved = move_into(path, folder, path.name)
    if take_fingerprint(moved) != Fingerprint.from_dict(medium) and take_fingerprint(path) is None:
        move(moved, path)
    return moved
