"""Where workers live: what the pool asks of a backend, local processes or other machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gpu_pool.types import Device, WorkerCommand, WorkerMessage


class Backend(Protocol):
    """Where workers live. Nothing here raises because of a worker: its end is an Exited, heard once and last."""

    def devices(self) -> Sequence[Device]:
        """The devices workers can be spawned on, and how they are now.

        There may be more than before, never fewer: one that is gone has state "lost", with the reason. Any other state
        means that it is here; a reason then says why nothing new may be started on it.
        """
        ...

    def spawn(self, device: str) -> None:
        """Start a worker; Ready follows, or Exited. The device has none now."""
        ...

    def send(self, device: str, message: WorkerCommand) -> None:
        """Pass a message to the worker without blocking; WireError if it can't be one. Without a worker, nothing."""
        ...

    def kill(self, device: str) -> None:
        """SIGKILL the worker and what it started; Exited follows. Without a worker, nothing."""
        ...

    def wait(self, timeout_s: float, wakeup_fd: int) -> list[WorkerMessage]:
        """What was heard, in order for each device; returns early when `wakeup_fd` is readable, without reading it, and
        when a device has changed."""
        ...

    def close(self) -> None:
        """Kill and forget everything; the backend is of no use afterwards."""
        ...
