"""Devices, tasks, plans, and the messages between pool and worker.

Imports only the standard library.
"""

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
    """A place where one worker runs; bytes are memory of its card, times are the pool's clock.

    id          "cpu:0", "GPU-<uuid>" or "MIG-<uuid>"; "GPU-<uuid>/2" is the second worker of that
                card
    free_bytes  what the driver reports as free; in the list that a strategy gets: what this worker
                may take
    reason      why it isn't in service, or gets no new span although its worker lives
    card        the UUID of the card, "" for a processor
    held_bytes  what its worker holds of the card
    load_s      seconds that loading the model took, 0 if unknown
    batch       frames that the worker takes at once, 0 if unknown
    retry_at_s  when a sick device is tried again, else 0
    read_at_s   when the driver was asked for the figures
    node        the machine that it is in, "" for this one
    temperature_c, load_percent, power_w
                what the card reports of itself now; None for what it doesn't
    """

    id: str
    kind: DeviceKind
    name: str = ""
    total_bytes: int = 0
    free_bytes: int = 0
    state: DeviceState = "starting"
    reason: str = ""
    worker_pid: int | None = None
    model: str = ""
    card: str = ""
    held_bytes: int = 0
    load_s: float = 0.0
    batch: int = 0
    retry_at_s: float = 0.0
    read_at_s: float = 0.0
    node: str = ""
    temperature_c: int | None = None
    load_percent: int | None = None
    power_w: int | None = None


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Units [start, stop) of a task."""

    start: int
    stop: int

    @property
    def units(self) -> int:
        return self.stop - self.start


def grid(units: int, step: int = 1) -> tuple[Span, ...]:
    """Cut a task of so many units into spans of at most 240, or one step.

    Every edge but the last is a multiple of `step`, the number of units that a worker computes
    together. Both depend on the job alone, so that the bytes of a result never depend on the
    devices. ValueError below 1.
    """
    if min(units, step) < 1:
        raise ValueError(f"a task has at least one unit, not {units} in steps of {step}")
    steps = math.ceil(units / step)
    n = max(min(math.ceil(units / 24), 16, steps), math.ceil(steps / max(1, 240 // step)))
    edges = [min(units, steps * i // n * step) for i in range(n + 1)]
    return tuple(Span(a, b) for a, b in pairwise(edges))


@dataclass(frozen=True, slots=True)
class Task:
    """What is left to do of one stage of one job.

    todo          spans that are neither done nor running, in order
    running       spans that are running somewhere now
    model         what the worker requires; a device that has it loaded is preferred
    memory_bytes  all that a worker holds of its card while it runs a span, the model included; 0:
                  unknown
    payload       JSON for the worker's handler
    is_local      whether it runs on this machine alone, which has the files
    """

    id: str
    kind: DeviceKind
    todo: tuple[Span, ...]
    running: tuple[Span, ...] = ()
    strategy: str = "auto"
    model: str = ""
    memory_bytes: int = 0
    payload: Mapping[str, Any] = field(default_factory=dict)
    is_local: bool = False

    def can_run_on(self, device: Device) -> bool:
        """Whether the device is of the right kind, in a machine that has the files."""
        return device.kind == self.kind and not (self.is_local and device.node)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A span, and the device that runs it."""

    span: Span
    device: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which spans of a task start now, and on which devices."""

    task: Task
    assignments: tuple[Assignment, ...]


# from the pool to a worker -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """The first message: opens the worker's handler. `handler` is "package.module:factory"."""

    device: str
    handler: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunSpan:
    """Run units [start, stop) of a task."""

    task: str
    start: int
    stop: int
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give up the span of this task; without one, do nothing."""

    task: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End after the current span, which is cancelled."""


# from a worker to the pool -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker can run spans.

    `device` is the id it sees, so that a worker on the wrong card is refused.
    Facts that the pool uses: "model" (what it has loaded), "load_s", "batch", "held_bytes".
    """

    device: str
    pid: int
    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """How many units of a span are done.

    `held_bytes`: what the worker holds of its card now; -1: unknown.
    """

    task: str
    start: int
    stop: int
    units_done: int
    held_bytes: int = -1


@dataclass(frozen=True, slots=True)
class Done:
    """A span that ended with a result, after so many seconds.

    `rss_bytes`: the worker's resident memory; `stats`: as in Ready, with their present values.
    """

    task: str
    start: int
    stop: int
    seconds: float
    result: Mapping[str, Any] = field(default_factory=dict)
    rss_bytes: int = 0
    stats: Mapping[str, Any] = field(default_factory=dict)


OUTDATED = "worker_outdated"
"""The code of a worker that has to be replaced before it can run the span: neither its fault nor the job's."""
Fault = Literal["job", "worker", "cancelled"]


@dataclass(frozen=True, slots=True)
class Failed:
    """A span that ended without a result.

    fault   "job": the input or the request caused it (code, message and hint come from the
            engine);
            "worker": the worker died, stalled or broke the protocol; "cancelled": the pool asked
            for it
    detail  for the ledger, not for the user: the cause, memory at the time, the last log lines or
            the traceback
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


WorkerCommand = Open | RunSpan | Cancel | Stop
WorkerReport = Ready | Progress | Done | Failed

# from a backend to the pool ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProtocolError:
    """A worker sent something that is no message."""

    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker has ended; this is its last message.

    signal        what killed it, as "SIGKILL", or "" when it ended by itself with the exit code
                  `code`
    log           the last lines it wrote
    out_of_memory the host's OOM killer killed a process during its life, and it ended by SIGKILL
    peak_bytes    the most memory of the host that it held
    """

    pid: int
    code: int = 0
    signal: str = ""
    log: str = ""
    out_of_memory: bool = False
    peak_bytes: int = 0


WorkerMessage = tuple[str, WorkerReport | ProtocolError | Exited]
"""(device id, what its worker sent, or how it ended)"""

# from the pool to the daemon -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """Progress or the end of a span, and the id of its device."""

    device: str
    message: Progress | Done | Failed


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A device has another state, reason, worker, model or memory than at its last report."""

    device: Device


PoolEvent = Event | DeviceChanged
