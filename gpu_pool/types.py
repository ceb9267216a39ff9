"""The pool's vocabulary: devices, work, plans, and the messages between daemon and worker. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

DeviceKind = Literal["cpu", "cuda"]
DeviceState = Literal["starting", "idle", "busy", "sick", "drained", "lost"]


@dataclass(frozen=True, slots=True)
class Device:
    """A place where one worker runs. `id` is "cpu:0", "GPU-<uuid>" or "MIG-<uuid>"; bytes are memory."""

    id: str
    kind: DeviceKind
    name: str = ""
    total_bytes: int = 0
    free_bytes: int = 0
    state: DeviceState = "starting"
    reason: str = ""
    worker_pid: int | None = None
    model: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Units [start, stop) of a task."""

    start: int
    stop: int

    @property
    def units(self) -> int:
        return self.stop - self.start


def grid(units: int) -> tuple[Span, ...]:
    """Cut a task into spans by its length alone, so that the bytes of a result never depend on the devices."""
    if units < 1:
        raise ValueError(f"a task has at least one unit, not {units}")
    n = max(min(math.ceil(units / 24), 16), math.ceil(units / 240))
    edges = [units * i // n for i in range(n + 1)]
    return tuple(Span(a, b) for a, b in pairwise(edges))


@dataclass(frozen=True, slots=True)
class Task:
    """One stage of one job, as far as it is still to be done.

    todo       spans that are neither done nor running, in order
    running    spans that are running somewhere now
    model      what the worker has to have loaded; a device that has it is preferred
    payload    JSON for the worker's handler
    """

    id: str
    kind: DeviceKind
    todo: tuple[Span, ...]
    running: tuple[Span, ...] = ()
    strategy: str = "auto"
    model: str = ""
    memory_bytes: int = 0
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assignment:
    span: Span
    device: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which spans start where, now."""

    task: Task
    assignments: tuple[Assignment, ...]


# down the pipe -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """The first message: what this worker is to be. `handler` is "package.module:factory"."""

    device: str
    handler: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    task: str
    start: int
    stop: int
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    task: str


@dataclass(frozen=True, slots=True)
class Stop:
    pass


# up the pipe ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is up. `device` is the id it sees, so that a worker on the wrong card is refused."""

    device: str
    pid: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    task: str
    start: int
    stop: int
    units_done: int


@dataclass(frozen=True, slots=True)
class Done:
    task: str
    start: int
    stop: int
    seconds: float
    result: Mapping[str, Any] = field(default_factory=dict)
    rss_bytes: int = 0


Fault = Literal["job", "worker", "cancelled"]


@dataclass(frozen=True, slots=True)
class Failed:
    """A span that ended without a result.

    fault "job": the input or the request is to blame (code, message and hint come from the engine);
    "worker": the worker died, froze or spoke nonsense, the job is not to blame; "cancelled": we asked for it.
    `detail` holds the last log lines or the traceback, for the ledger and not for the user.
    """

    task: str
    start: int
    stop: int
    code: str
    message: str
    hint: str = ""
    retry: bool = False
    fault: Fault = "job"
    detail: str = ""


Down = Open | Run | Cancel | Stop
Up = Ready | Progress | Done | Failed

# from a backend to the pool ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Nonsense:
    """A worker said something that is no message."""

    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker is gone, and nothing more is heard of it.

    signal        what killed it, as "SIGKILL", or "" when it ended by itself with the exit code `code`
    log           the last lines it wrote
    out_of_memory the host's OOM killer struck while it lived, and it died of SIGKILL
    """

    pid: int
    code: int = 0
    signal: str = ""
    log: str = ""
    out_of_memory: bool = False


Heard = tuple[str, Up | Nonsense | Exited]
"""A device and what its worker said, or what became of it."""

# from the pool to the daemon -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """Something about a span, and the device it was on."""

    device: str
    message: Progress | Done | Failed


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A device has another state, reason, worker or model than when it was last reported."""

    device: Device


PoolEvent = Event | DeviceChanged
