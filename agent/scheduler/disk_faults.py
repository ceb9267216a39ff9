"""Whether an attempt failed because of the disks of the share or the state, or since the machine has no
thread left: the job is not to blame. Pure."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from agent.errors import ErrorCode
from agent.ledger.job import Job, JobError
from agent.settings import Folders
from gpu_pool.types import Failed

ANYWHERE = {
    *(errno.EIO, errno.EDQUOT, errno.ENOSPC, errno.ESTALE, errno.EROFS, errno.ENOTCONN, errno.ETIMEDOUT),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV, errno.ENXIO, errno.EMFILE, errno.ENFILE),
}
"""Errors that no input causes."""
OF_MACHINE = {errno.EAGAIN}
"""The error of a machine that has no further thread or process. Too little memory may be the fault of a medium."""
NO_THREAD = re.compile(r"RuntimeError: can't start new thread")
"""What Python says where the limit of threads is reached."""
MACHINE = "the machine has no further thread or process for a worker"
RIGHTS = {errno.EACCES, errno.EPERM}
"""Errors that are ours only where the path is."""
OWN_FAULTS = 5
"""After so many faults of one job, between which others were done, its medium is to blame and not the disk."""
SYSTEM_ERROR = re.compile(r"\[Errno (\d+)\] [^'\"\n]*(?:(['\"])(.*?)\2)?")


def describe_disk_fault(failed: Failed, folders: Folders) -> str:
    """Return what is wrong with the share or the state, "" where the failure is something else."""
    if failed.code == ErrorCode.DISK_FULL:
        return failed.message
    if failed.code == ErrorCode.INTERNAL and NO_THREAD.match(failed.message):
        return f"{MACHINE}: {os.strerror(errno.EAGAIN)}"
    for number, _, path in _find_errors(failed):
        if number in OF_MACHINE:
            return f"{MACHINE}: {os.strerror(number)}"
        is_ours = any(Path(path).is_relative_to(folder) for folder in (folders.share, folders.state, folders.cache))
        if number in ANYWHERE or (number in RIGHTS and path and (is_ours or not can_search(path))):
            return f"{os.strerror(number)}{f': {path}' if path else ''}"
    return ""


def name_trouble(fault: str) -> str:
    """Return a sentence about a fault that `describe_disk_fault` found."""
    return fault if fault.startswith(MACHINE) else f"the share or the state has trouble: {fault}"


def explain_unreadable_medium(job: Job, failed: Failed, others_done: int = 0) -> JobError | None:
    """Return the job's error where the daemon's user may not read one of its media, or its sectors are bad; else None.

    `others_done`: how often, after such a fault of this job, another one was done.
    """
    own = RIGHTS | ({errno.EIO} if others_done >= OWN_FAULTS else set())
    for number, _, path in _find_errors(failed):
        for role, medium in job.media.items():
            if number in own and path == medium["path"] and can_search(path):
                message = f'{role} "{medium["given"]}" can\'t be read: {os.strerror(number)}'
                return JobError(ErrorCode.NOT_READABLE, message, ErrorCode.NOT_READABLE.hint, retry=False)
    return None


def can_search(path: str) -> bool:
    """Whether this user may look for a file: else its folder, or a whole mount, is what is closed."""
    return os.access(Path(path).parent, os.X_OK)


def _find_errors(failed: Failed) -> list[tuple[int, str, str]]:
    """Return the number, the quote and the path of each error of the system that the failure tells of.

    Other codes than `internal` have explained the error: a damaged medium gives EIO, too.
    """
    text = failed.message if failed.code == ErrorCode.INTERNAL else ""
    return [(int(number), quote, path) for number, quote, path in SYSTEM_ERROR.findall(text)]
