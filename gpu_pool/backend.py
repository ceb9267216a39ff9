"""The interface between the pool and where its workers run: this machine or others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gpu_pool.types import Device, WorkerCommand, WorkerMessage


class Backend(Protocol):
    """The place where workers run.

    No method raises because of a worker: its end is reported as an Exited, once, as its last
    message.
    """

    def devices(self) -> Sequence[Device]:
        """Return the devices on which workers can be spawned, with their current figures.

        Devices are added, never removed: one that is gone has state "lost", with the reason. Any
        other state means that it is present; a reason then says why no new span may be started on
        it.
        """
        ...

    def spawn(self, device: str, *, unloaded: bool = False) -> None:
        """Start a worker, with `unloaded` one that loads no model before it has a span.

        Ready follows, or Exited. ValueError if the device has one.
        """
        ...

    def send(self, device: str, message: WorkerCommand) -> None:
        """Pass a message to the worker without blocking; do nothing without a worker.

        WireError if the message can't be encoded.
        """
        ...

    def kill(self, device: str) -> None:
        """SIGKILL the worker and the programs it started.

        Exited follows. Do nothing without a worker.
        """
        ...

    def wait(self, timeout_s: float, wakeup_fd: int) -> list[WorkerMessage]:
        """Return the messages that have arrived, in order for each device.

        Returns early when a device has changed, and when `wakeup_fd` is readable, which it doesn't
        read.
        """
        ...

    def close(self) -> None:
        """Kill all workers and free everything; the backend can't be used afterwards."""
        ...
