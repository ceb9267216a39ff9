"""Whether a job caused the loss of its worker. Pure."""

from __future__ import annotations

import re

from gpu_pool.types import Failed

CRASH_SIGNALS = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
"""Signals that a process causes by itself; SIGKILL, SIGTERM and the like are sent by others."""


def is_caused_by_job(failed: Failed) -> bool:
    """Whether the job may have ended its worker: by a crash in native code, by an exit in the middle of a span, by
    using more memory than the host has, or by taking the worker over, which then breaks the protocol.

    A worker that was killed, froze or ran out of card memory is no sign of that: the next worker may succeed, so these
    count only as interruptions, and so does SIGBUS: a disk failed under a file that is mapped into memory. One that
    froze, or got that, while it inspected is a sign: all that an inspection does is to open the job's own files.
    """
    if failed.code == "out_of_memory":
        return "SIGKILL" in failed.message
    if failed.code == "worker_stalled":
        return failed.task.endswith("/inspect")
    if "SIGBUS" in failed.message and not failed.task.endswith("/inspect"):
        return False
    exited = "ended by itself" in failed.message
    crashed = re.search(rf"\b({'|'.join(CRASH_SIGNALS)})\b", failed.message) is not None
    return failed.code == "worker_nonsense" or (failed.code == "worker_died" and (exited or crashed))


def describe_failure(failed: Failed) -> str:
    """Return the message, then the memory at that time and the last lines of the worker's log."""
    detail = failed.detail.removeprefix(failed.message).strip()
    return "\n".join(part for part in (failed.message, detail) if part)
