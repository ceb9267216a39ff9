"""The workers of a device that is tested, in a pool of their own: the daemon's workers are left alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from agent.scheduler.tuning import card_rules
from agent.selftest.judge import TIME_UP
from agent.settings import Settings
from gpu_pool.cards import CardRules, CardWatch
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import Assignment, Device, DeviceKind, Done, Event, Failed, Plan, Span, Task

HANDLER = "models.handler:open_handler"
WORKERS = 2
POLL_S = 0.2
START_S = 180.0
STALL_S = 240.0
"""A check that compiles, or paints on a slow processor, reports nothing for a while."""
READING_S = 5.0
FREED_S = 15.0
"""How long a driver may take to free the memory of a process that was killed."""


@dataclass(frozen=True, slots=True)
class Target:
    """A device to be tested.

    id      the UUID of a card, or "cpu"
    driver  the version of the card's driver, "" for a processor
    """

    id: str
    kind: DeviceKind
    name: str = ""
    driver: str = ""

    @property
    def card(self) -> str:
        return self.id if self.kind == "cuda" else ""


class DeviceWorkers(Protocol):
    """What a self-test asks of the device's workers."""

    def ask(self, payload: Mapping[str, Any], workers: int = 1) -> list[Done | Failed]:
        """Run a check on the first worker, or on several at once; return how each ended."""
        ...

    def kill(self, held_bytes: int, enough_bytes: int) -> tuple[int, float]:
        """SIGKILL all workers, of which the first says that it holds `held_bytes`.

        Return how much of that is still taken, once it is at most `enough_bytes` or time is up, and
        the seconds until then.
        """
        ...


class PoolWorkers:
    """The same over a pool. `deadline_s`: when the whole test must have ended, by `clock`."""

    def __init__(self, pool: Pool, kind: DeviceKind, deadline_s: float, clock: Callable[[], float] = time.monotonic):
        self._pool, self._kind, self._deadline_s, self._clock = pool, kind, deadline_s, clock
        self._ids = [device.id for device in pool.devices()]
        self._numbers = count()
        self._wait_for_idle(self._ids)

    def ask(self, payload: Mapping[str, Any], workers: int = 1) -> list[Done | Failed]:
        ids, task_id = self._ids[:workers], f"selftest-{next(self._numbers)}"
        if self._clock() >= self._deadline_s:
            return [_fail(TIME_UP, "the time of the self-test was up")] * len(ids)
        if failure := self._wait_for_idle(ids):
            return [failure] * len(ids)
        spans = [Span(number, number + 1) for number in range(len(ids))]
        task = Task(task_id, self._kind, tuple(spans), payload={"stage": "selftest", **payload})
        assignments = tuple(Assignment(span, device) for span, device in zip(spans, ids, strict=True))
        self._pool.start(Plan(task, assignments))
        return self._wait_for_ends(task_id, len(ids))

    def kill(self, held_bytes: int, enough_bytes: int) -> tuple[int, float]:
        free_bytes = self._read_free_bytes()
        pids = [device.worker_pid for device in self._devices() if device.worker_pid]
        began_s = self._clock()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while True:
            self._pool.poll(POLL_S)
            kept_bytes = self._read_kept_bytes(pids, held_bytes, free_bytes)
            passed_s = self._clock() - began_s
            if kept_bytes <= enough_bytes or passed_s >= FREED_S:
                return kept_bytes, passed_s

    def _devices(self) -> list[Device]:
        return [device for device in self._pool.devices() if device.id in self._ids]

    def _wait_for_ends(self, task_id: str, number: int) -> list[Done | Failed]:
        ends: dict[int, Done | Failed] = {}
        is_late = False
        while len(ends) < number:
            for event in self._pool.poll(POLL_S):
                if isinstance(event, Event) and isinstance(event.message, Done | Failed):
                    ends[event.message.start] = event.message
            if not is_late and self._clock() >= self._deadline_s:
                is_late = True
                self._pool.cancel(task_id)
        late = _fail(TIME_UP, "the time of the self-test was up")
        found = [ends[start] for start in sorted(ends)]
        return [late if is_late and isinstance(end, Failed) and end.fault == "cancelled" else end for end in found]

    def _wait_for_idle(self, ids: Sequence[str]) -> Failed | None:
        """Wait until these workers are free; return why one never is, and None if all are."""
        until_s = self._clock() + START_S
        while True:
            waits = [device for device in self._pool.devices() if device.id in ids and device.state != "idle"]
            if not waits and ids:
                return None
            gone = next((device for device in waits if device.state in ("sick", "lost")), None)
            if gone or not ids or self._clock() >= until_s:
                reason = gone.reason if gone else f"no worker was ready within {START_S:.0f} s"
                return _fail("worker_died", reason)
            self._pool.poll(POLL_S)

    def _read_kept_bytes(self, pids: Sequence[int], held_bytes: int, before_bytes: int) -> int:
        """Return how much less is free than there should be: what is counted is what has become free since.

        On a processor, and a card that shares its memory, it is what the processes have left.
        """
        if not any(device.card and device.total_bytes for device in self._devices()):
            return sum(map(_read_resident_bytes, pids))
        return max(0, held_bytes - (max(device.free_bytes for device in self._devices()) - before_bytes))

    def _read_free_bytes(self) -> int:
        """Return the free memory of the card by a reading that is newer than this call."""
        now_s = until_s = self._clock()
        until_s += READING_S
        while any(device.card and device.read_at_s < now_s for device in self._devices()) and self._clock() < until_s:
            self._pool.poll(POLL_S)
        return max((device.free_bytes for device in self._devices()), default=0)


@contextmanager
def open_workers(settings: Settings, target: Target, budget_s: float, count: int = WORKERS) -> Iterator[PoolWorkers]:
    """Start the workers of a target, and end them afterwards."""
    logs = settings.folders.selftest_logs
    is_card = target.kind == "cuda"
    watch = CardWatch(logs / "nvml.log") if is_card else None
    if watch:
        watch.wait_for_first(START_S)
    backend = LocalBackend(
        [] if is_card else cpu_devices(count),
        handler=HANDLER,
        handler_options={},
        log_dir=logs,
        watch=watch,
        rules=CardRules(only=(target.id,), exclude=card_rules(settings).exclude, workers=count),
    )
    with Pool(backend, stall_s=STALL_S, start_s=START_S) as pool:
        yield PoolWorkers(pool, target.kind, time.monotonic() + budget_s)


def _fail(code: str, message: str) -> Failed:
    return Failed("selftest", 0, 1, code, message, fault="worker")


def _read_resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 when it is gone or a zombie."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return 0
