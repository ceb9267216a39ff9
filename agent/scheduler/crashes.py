"""Who is to blame for a lost worker. Pure."""

from __future__ import annotations

import re

from gpu_pool.types import Failed

CRASH_SIGNALS = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
"""Signals that a process brings upon itself; SIGKILL, SIGTERM and the like come from others."""


def killed_by_job(failed: Failed) -> bool:
    """Whether the job may be what ended the worker: a crash in native code, an exit in the middle of a span, or more
    memory than this machine has.

    Not a worker that was killed by somebody, that froze or talked nonsense, or that ran out of the memory of its card:
    another may do better, so these only count as interruptions.
    """
    if failed.code == "out_of_memory":
        return "SIGKILL" in failed.message
    by_itself = "ended by itself" in failed.message
    return failed.code == "worker_died" and (
        by_itself or bool(re.search(rf"\b({'|'.join(CRASH_SIGNALS)})\b", failed.message))
    )


def cause(failed: Failed) -> str:
    """What happened, for the ledger: the sentence, then memory at the time and the last lines of the log."""
    return "\n".join(part for part in (failed.message, failed.detail.removeprefix(failed.message).strip()) if part)
