"""What the pool costs on this machine, with real workers that do nothing or sleep."""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpu_pool.backoff import Backoff
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import DeviceChanged, Done, Event, Failed, PoolEvent, Span, Task


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    dispatches, deaths  how often the latencies are taken
    flood               spans that take no time, for dispatches a second
    jobs, spans         the load of `queue`: so many jobs of one span; of `split`: one job of so many spans
    span_s              how long a span of those sleeps
    workers             how many workers share that load, in turn
    """

    dispatches: int = 500
    deaths: int = 20
    flood: int = 5000
    jobs: int = 40
    spans: int = 16
    span_s: float = 0.25
    workers: tuple[int, ...] = (1, 2, 4)


class Sleeper:
    """The handler: sleeps for as long as it is told to, and says when it began."""

    def __init__(self, *_: object) -> None:
        pass

    def run(self, payload: dict[str, Any], *_: object) -> dict[str, Any]:
        began = time.monotonic()  # the same clock in every process
        if payload["seconds"]:
            threading.Event().wait(payload["seconds"])
        return {"began": began}


def bench(effort: Effort | None = None) -> dict[str, float]:
    """The figures by name. A scaling is seconds of work done in a second: 4.0 is perfect for four workers."""
    effort = effort or Effort()
    most = max(effort.workers)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        logs = Path(name)
        for count in (1, most):
            figures[f"start_of_{count}_s"] = start_up(count, logs)
        with opened(1, logs) as pool:
            figures |= spread("dispatch", dispatch_latencies(pool, effort.dispatches))
            figures |= spread("death_noticed", death_notices(pool, effort.deaths))
        for count in (1, most):
            figures[f"dispatches_per_s_at_{count}"] = dispatches_per_s(count, effort.flood, logs)
        for strategy in ("queue", "split"):
            for count in effort.workers:
                figures[f"{strategy}_scaling_at_{count}"] = scaling(strategy, count, effort, logs)
    return {what: round(figure, 3) for what, figure in figures.items()}


@contextmanager
def opened(count: int, logs: Path) -> Iterator[Pool]:
    """A pool whose workers are all ready."""
    backend = LocalBackend(cpu_devices(count), handler="benchmarks.pool_rate:Sleeper", handler_options={}, log_dir=logs)
    with Pool(backend, stall_s=60.0, backoff=Backoff(sick_after=1000, sick_s=0.01)) as pool:
        while not all(device.state == "idle" for device in pool.devices()):
            pool.poll(1.0)
        yield pool


def start_up(count: int, logs: Path) -> float:
    """Seconds until so many workers are ready."""
    began = time.monotonic()
    with opened(count, logs):
        return time.monotonic() - began


def dispatch_latencies(pool: Pool, rounds: int) -> list[float]:
    """Seconds from the decision about a waiting job to the handler's first line."""
    latencies = []
    for number in range(rounds):
        began = time.monotonic()
        begin(pool, task(str(number)))
        latencies.append(ended(pool).result["began"] - began)
    return latencies


def death_notices(pool: Pool, rounds: int) -> list[float]:
    """Seconds from kill -9 of a busy worker to the end of its span."""
    noticed = []
    for number in range(rounds):
        begin(pool, task(str(number), seconds=60.0))
        pid = next(device.worker_pid for device in pool.devices() if device.state == "busy")
        began = time.monotonic()
        os.kill(pid or 0, signal.SIGKILL)
        await_event(pool, lambda event: isinstance(event, Event) and isinstance(event.message, Failed))
        noticed.append(time.monotonic() - began)
        await_event(pool, lambda event: isinstance(event, DeviceChanged) and event.device.state == "idle")
    return noticed


def dispatches_per_s(count: int, spans: int, logs: Path) -> float:
    """One task of many spans that take no time, shared out to all workers."""
    with opened(count, logs) as pool:
        began = time.monotonic()
        run_all(pool, [task("flood", spans=spans, strategy="split")])
        return spans / (time.monotonic() - began)


def scaling(strategy: str, count: int, effort: Effort, logs: Path) -> float:
    """Seconds of sleep in a second, over many jobs of one span or one job of many."""
    if strategy == "queue":
        jobs = [task(str(number), effort.span_s) for number in range(effort.jobs)]
    else:
        jobs = [task("one", effort.span_s, spans=effort.spans, strategy=strategy)]
    with opened(count, logs) as pool:
        began = time.monotonic()
        run_all(pool, jobs)
        return effort.span_s * sum(len(job.todo) for job in jobs) / (time.monotonic() - began)


def run_all(pool: Pool, jobs: Sequence[Task]) -> None:
    """What the daemon does, without its files: start what can start, wait, until all spans are done."""
    todo = {job.id: list(job.todo) for job in jobs}
    while todo:
        for job in jobs:
            if todo.get(job.id):
                plan = pool.plan(replace(job, todo=tuple(todo[job.id][:16])), 0)
                for assignment in plan.assignments if plan else ():
                    todo[job.id].remove(assignment.span)
                if plan:
                    pool.start(plan)
        pool.poll(10.0)
        todo = {name: spans for name, spans in todo.items() if spans or pool.running_spans(name)}


def task(name: str, seconds: float = 0.0, spans: int = 1, strategy: str = "queue") -> Task:
    todo = tuple(Span(i, i + 1) for i in range(spans))
    return Task(name, "cpu", todo, strategy=strategy, payload={"seconds": seconds})


def begin(pool: Pool, job: Task) -> None:
    plan = pool.plan(job, 0)
    if plan is None:
        raise RuntimeError("the worker isn't idle")
    pool.start(plan)


def ended(pool: Pool) -> Done:
    event = await_event(pool, lambda event: isinstance(event, Event) and isinstance(event.message, Done | Failed))
    if not isinstance(event, Event) or not isinstance(event.message, Done):
        raise RuntimeError(f"the worker failed: {event}")
    return event.message


def await_event(pool: Pool, wanted: Callable[[PoolEvent], bool]) -> PoolEvent:
    while True:
        for event in pool.poll(10.0):
            if wanted(event):
                return event


def spread(what: str, seconds: Sequence[float]) -> dict[str, float]:
    ordered = [1000 * second for second in sorted(seconds)]
    return {
        f"{what}_median_ms": statistics.median(ordered),
        f"{what}_p99_ms": ordered[int(0.99 * (len(ordered) - 1))],
    }
