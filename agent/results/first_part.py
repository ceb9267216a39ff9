"""First parts: what is rendered of a long video, shown beside its future result until that is there."""

from __future__ import annotations

import errno
import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.fs import NEW_FILE, discard, make_safe_name, read_regular
from agent.fs.folders import hold_folder, move, remove_empty, sync
from agent.languages import translate
from agent.ledger.job import Job
from agent.ledger.ledger import Ledger
from agent.results import outbox
from agent.results.records import format_json
from agent.results.video_file import FIRST_NAMES
from agent.service.log import make_extra
from agent.settings import Folders
from gpu_pool.failpoints import failpoint

log = logging.getLogger("musedrop")

SUFFIX, RECORD = ".part", "first.json"
MESSAGE = "these are the first seconds of a video that is still being made: its result will be in outbox/NAME"
FILES = (*FIRST_NAMES, RECORD)
MAX_RECORD_BYTES = 1 << 16


class FirstParts:
    """outbox/NAME.part with the first seconds of running jobs.

    The row of a job names the folder before it is there, and until it is gone: `shown` holds the uids of such rows.
    """

    def __init__(self, folders: Folders, ledger: Ledger) -> None:
        self._folders, self._ledger = folders, ledger
        self.shown = ledger.list_with_first_part()

    def show(self, job: Job, staging: Path) -> None:
        """Publish the first part of a running job. Where that can't be done, the job goes on without."""
        try:
            _write_record(staging, make_record(job))
            target = self._choose_target(job)
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
            self._move_out(job, staging, target)
        except OSError as error:
            log.warning("%s: its first part can't be shown: %s", job.name, error, extra=make_extra(job))
            discard(staging)
            return
        shown = target.relative_to(self._folders.outbox)
        log.info("%s: its first seconds are in outbox/%s", job.name, shown, extra=make_extra(job))

    def _move_out(self, job: Job, staging: Path, target: Path) -> None:
        self._ledger.update(job.uid, first_part=str(target.relative_to(self._folders.outbox)))
        self.shown.add(job.uid)
        failpoint("first_part")
        try:
            move(staging, target)
            sync(target.parent)
        except OSError:
            if read_uid(target) != job.uid:  # a rename may be done though an error came
                self._forget(job.uid)
            raise

    def _forget(self, uid: str) -> None:
        self._ledger.update(uid, first_part=None)
        self.shown.discard(uid)

    def _choose_target(self, job: Job) -> Path:
        batch = job.spec.batch if job.spec else ""
        folder = outbox.choose_folder(self._folders.outbox, batch) if batch else self._folders.outbox
        return folder / f"{make_safe_name(job.name)}{SUFFIX}"

    def remove_ended(self) -> None:
        """Remove the first parts of jobs that have ended. What can't be removed is tried again."""
        for uid, name in self._ledger.list_ended_with_first_part() if self.shown else ():
            try:
                remove_first_part(self._folders.outbox / name, uid)
            except OSError as error:
                log.warning("the first part outbox/%s can't be removed: %s", name, error.strerror)
                continue
            self._forget(uid)

    def recover(self, *, in_batches: bool = False) -> None:
        """Remove first parts that no row names, as of jobs that a restored ledger does not know to run.

        Rows of unfinished jobs forget those that are not there, as after a crash before the rename.
        `in_batches`: also those in folders of the outbox, each of which is read then.
        """
        for known in filter(None, map(self._ledger.job, [*self.shown])):
            if known.finished_ms is None and read_uid(self._folders.outbox / (known.first_part or "")) != known.uid:
                self._forget(known.uid)
        with suppress(OSError):  # an outbox that can't be read is a problem elsewhere
            folders = outbox.list_folders(self._folders.outbox)
            inner = [path for batch in outbox.list_batches(folders) for path in batch] if in_batches else []
            for folder in (path for path in (*folders, *inner) if path.name.endswith(SUFFIX)):
                self._remove_unnamed(folder)

    def _remove_unnamed(self, folder: Path) -> None:
        uid = read_uid(folder)
        job = self._ledger.job(uid) if uid else None
        if uid and (job is None or job.first_part != str(folder.relative_to(self._folders.outbox))):
            with suppress(OSError):
                remove_first_part(folder, uid)


def make_record(job: Job) -> dict[str, Any]:
    """Return what first.json says: that the folder is not the result."""
    texts = {"message": MESSAGE, "message_zh": translate(MESSAGE)}
    return {"name": job.name, "uid": job.uid, "id": job.client_id, "state": "running", **texts}


def remove_first_part(folder: Path, uid: str) -> None:
    """Remove a folder that holds the first part of that job; what else is in it stays, with it. Raises OSError."""
    found = read_uid(folder)
    if found == uid:
        with hold_folder(folder) as fd:
            for name in FILES:  # the record last: it says that the folder is ours
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=fd)
    if found in (uid, ""):
        remove_empty(folder)


def read_uid(folder: Path) -> str:
    """Return the job whose first part the folder holds, "" for none."""
    try:
        record = json.loads(read_regular(folder / RECORD, MAX_RECORD_BYTES))
    except (OSError, ValueError, RecursionError):
        return ""
    uid = record.get("uid") if isinstance(record, dict) else None
    return uid if isinstance(uid, str) else ""


def _write_record(staging: Path, record: dict[str, Any]) -> None:
    """Put first.json beside the video, both flushed."""
    with hold_folder(staging) as fd:
        with suppress(FileNotFoundError):
            os.unlink(RECORD, dir_fd=fd)
        with os.fdopen(os.open(RECORD, NEW_FILE, 0o666, dir_fd=fd), "wb") as file:
            file.write(format_json(record))
            file.flush()
            os.fsync(file.fileno())
        if not any(outbox.is_regular(fd, name) for name in FIRST_NAMES):
            raise FileNotFoundError(f"{staging.name} has no video")
        os.fsync(fd)
