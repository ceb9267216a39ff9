"""Pools of real workers, and a way to wait for what they do."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import Device, Event, PoolEvent, Span, Task
from tests.needs import need
from tests.nvmlstub import PretendDriver, build

DEADLINE_S = 30.0
HANDLERS = "tests.gpu_pool.handlers"
MakeBackend = Callable[..., LocalBackend]
MakePool = Callable[..., Pool]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("cc", "gcc")
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def driver(library: Path, tmp_path: Path) -> PretendDriver:
    return PretendDriver(library, tmp_path)


@pytest.fixture
def make_backend(tmp_path: Path) -> Iterator[MakeBackend]:
    """Local backends that leave no worker behind."""
    made: list[LocalBackend] = []

    def make(count: int = 1, *, factory: str = "Obliging", options: dict[str, Any] | None = None) -> LocalBackend:
        handler, log_dir = f"{HANDLERS}:{factory}", tmp_path / "logs"
        made.append(LocalBackend(cpu_devices(count), handler=handler, handler_options=options or {}, log_dir=log_dir))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def make_pool(make_backend: MakeBackend) -> Iterator[MakePool]:
    """Pools of real workers, closed at the end; what isn't for the Pool is for the backend."""
    made: list[Pool] = []

    def make(count: int = 1, *, factory: str = "Obliging", options: dict[str, Any] | None = None, **more: Any) -> Pool:
        made.append(Pool(make_backend(count, factory=factory, options=options), **{"stall_s": 30.0, **more}))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def watch(pool: Pool, until: Callable[[list[PoolEvent]], object]) -> list[PoolEvent]:
    """Poll until `until` holds for all that was seen; return what was seen."""
    seen: list[PoolEvent] = []
    deadline = time.monotonic() + DEADLINE_S
    while not until(seen):
        assert time.monotonic() < deadline, f"waited in vain; seen: {seen}"
        seen += pool.poll(0.5)
    return seen


def device(pool: Pool, name: str = "cpu:0") -> Device:
    return next(device for device in pool.devices() if device.id == name)


def await_state(pool: Pool, state: str, name: str = "cpu:0") -> Device:
    watch(pool, lambda _: device(pool, name).state == state)
    return device(pool, name)


def await_all_idle(pool: Pool) -> None:
    watch(pool, lambda _: all(device.state == "idle" for device in pool.devices()))


def begin(pool: Pool, do: str, *, units: int = 10, task: str = "task", **payload: Any) -> None:
    """Start one span of a task whose handler does what `do` names."""
    await_state(pool, "idle")
    plan = pool.plan(Task(task, "cpu", (Span(0, units),), strategy="queue", payload={"do": do, **payload}), 0)
    assert plan is not None
    pool.start(plan)


def messages(events: list[PoolEvent], kind: type) -> list[Any]:
    return [event.message for event in events if isinstance(event, Event) and isinstance(event.message, kind)]


def outcome(pool: Pool, kind: type) -> Any:
    """The first message of this kind."""
    return messages(watch(pool, lambda seen: messages(seen, kind)), kind)[0]


class Announcement:
    """A named pipe through which a process says its pid, so that a test knows it is there."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "announce")
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def wait(self) -> int:
        assert select.select([self._fd], [], [], DEADLINE_S)[0], "nobody announced itself"
        return int(os.read(self._fd, 100))

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def announcement(tmp_path: Path) -> Iterator[Announcement]:
    made = Announcement(tmp_path)
    yield made
    made.close()


def gone(pidfd: int, within_s: float) -> bool:
    """Whether the process ends in time. Takes the pidfd, because a pid may be somebody else's by then."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(within_s * 1000))
