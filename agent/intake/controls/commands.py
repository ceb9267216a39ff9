"""Commands of control files that the intake reads and the daemon executes."""

from __future__ import annotations

from dataclasses import dataclass

from agent.ledger.job import Job


@dataclass(frozen=True, slots=True)
class CancelJob:
    """End a job that is not finished."""

    job: Job


@dataclass(frozen=True, slots=True)
class DrainDevice:
    """Take a device, or all workers of a card, out of service."""

    name: str


@dataclass(frozen=True, slots=True)
class ResumeDevice:
    """Take a device, or all workers of a card, back into service; retry a sick one at once."""

    name: str


@dataclass(frozen=True, slots=True)
class UnloadDevice:
    """Give back the memory of a device, or of all workers of a card, that have no work."""

    name: str


@dataclass(frozen=True, slots=True)
class TrustClock:
    """Let old files be deleted by the calendar, though it has jumped."""


Command = CancelJob | DrainDevice | ResumeDevice | UnloadDevice | TrustClock
