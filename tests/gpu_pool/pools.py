"""Helpers for tests with pools of real workers: wait for what they do."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_pool.local import LocalBackend
from gpu_pool.pool import Pool
from gpu_pool.types import Device, Event, PoolEvent, Span, Task

DEADLINE_S = 30.0
HANDLERS = "tests.gpu_pool.handlers"
MakeBackend = Callable[..., LocalBackend]
MakePool = Callable[..., Pool]


def poll_until(pool: Pool, until: Callable[[list[PoolEvent]], object]) -> list[PoolEvent]:
    """Poll until `until` holds for all events so far; return them."""
    events: list[PoolEvent] = []
    deadline = time.monotonic() + DEADLINE_S
    while not until(events):
        assert time.monotonic() < deadline, f"not reached; events: {events}"
        events += pool.poll(0.5)
    return events


def get_device(pool: Pool, name: str = "cpu:0") -> Device:
    return next(device for device in pool.devices() if device.id == name)


def wait_for_state(pool: Pool, state: str, name: str = "cpu:0") -> Device:
    poll_until(pool, lambda _: get_device(pool, name).state == state)
    return get_device(pool, name)


def wait_until_idle(pool: Pool) -> None:
    poll_until(pool, lambda _: all(device.state == "idle" for device in pool.devices()))


def start_span(pool: Pool, do: str, *, units: int = 10, task: str = "task", **payload: Any) -> None:
    """Start one span of a task whose handler does what `do` names."""
    wait_for_state(pool, "idle")
    plan = pool.plan(Task(task, "cpu", (Span(0, units),), strategy="queue", payload={"do": do, **payload}), 0)
    assert plan is not None
    pool.start(plan)


def filter_messages(events: list[PoolEvent], kind: type) -> list[Any]:
    return [event.message for event in events if isinstance(event, Event) and isinstance(event.message, kind)]


def wait_for_message(pool: Pool, kind: type) -> Any:
    """Return the first message of this kind."""
    return filter_messages(poll_until(pool, lambda events: filter_messages(events, kind)), kind)[0]


class Announcement:
    """A named pipe through which a process sends its pid, so that a test knows that it runs."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "announce")
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def wait(self) -> int:
        assert select.select([self._fd], [], [], DEADLINE_S)[0], "no process sent its pid"
        return int(os.read(self._fd, 100))

    def close(self) -> None:
        os.close(self._fd)


def wait_for_end(pidfd: int, within_s: float) -> bool:
    """Return whether the process ends in time.

    By its pidfd, since the pid may be another's by then.
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(within_s * 1000))
