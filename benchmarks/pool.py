"""What the pool costs, with real workers: dispatch, death notice, start-up, scaling over a sleeping handler.

python -m benchmarks.pool
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_pool.health import Backoff
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import DeviceChanged, Done, Event, Failed, PoolEvent, Span, Task

SPAN_S = 0.25


class Handler:
    """Does nothing, for as long as it is told to, and says when it began."""

    def __init__(self, *_: object) -> None:
        pass

    def run(self, payload: dict[str, Any], *_: object) -> dict[str, Any]:
        began = time.monotonic()  # the same clock in every process
        if payload["seconds"]:
            threading.Event().wait(payload["seconds"])
        return {"began": began}


def open_pool(count: int, folder: str) -> Pool:
    backend = LocalBackend(
        cpu_devices(count), handler="benchmarks.pool:Handler", handler_options={}, log_dir=Path(folder)
    )
    pool = Pool(backend, stall_s=60.0, backoff=Backoff(sick_after=1000, sick_s=0.01))
    poll_until(pool, lambda _: all(device.state == "idle" for device in pool.devices()))
    return pool


def poll_until(pool: Pool, enough: Callable[[PoolEvent], bool]) -> PoolEvent:
    while True:
        for event in pool.poll(10.0):
            if enough(event):
                return event


def ended(pool: Pool) -> Event:
    event = poll_until(pool, lambda event: isinstance(event, Event) and isinstance(event.message, Done | Failed))
    assert isinstance(event, Event)
    return event


def task(name: str, seconds: float = 0.0, spans: int = 1, strategy: str = "queue") -> Task:
    todo = tuple(Span(i, i + 1) for i in range(spans))
    return Task(name, "cpu", todo, strategy=strategy, payload={"seconds": seconds})


def begin(pool: Pool, job: Task) -> None:
    plan = pool.plan(job, 0)
    assert plan is not None
    pool.start(plan)


def start_up(count: int, folder: str) -> float:
    began = time.monotonic()
    with open_pool(count, folder):
        return time.monotonic() - began


def dispatch_latency(pool: Pool, rounds: int = 500) -> list[float]:
    """From the decision (plan) to the handler's first line."""
    latencies = []
    for number in range(rounds):
        began = time.monotonic()
        begin(pool, task(str(number)))
        message = ended(pool).message
        assert isinstance(message, Done)
        latencies.append(message.result["began"] - began)
    return latencies


def dispatches_per_s(pool: Pool, spans: int = 5000) -> float:
    """One task of many spans that take no time, shared out to all workers."""
    began = time.monotonic()
    run_all(pool, [task("many", spans=spans, strategy="split")])
    return spans / (time.monotonic() - began)


def run_all(pool: Pool, jobs: Sequence[Task]) -> None:
    """What the daemon does, without its files: start what can start, wait, until all spans are done."""
    todo = {job.id: list(job.todo) for job in jobs}
    while todo:
        for job in jobs:
            if todo.get(job.id):
                plan = pool.plan(replace(job, todo=tuple(todo[job.id][:16])), 0)
                if plan is not None:
                    pool.start(plan)
                    for assignment in plan.assignments:
                        todo[job.id].remove(assignment.span)
        pool.poll(10.0)
        todo = {name: spans for name, spans in todo.items() if spans or pool.running(name)}


def death_notice(pool: Pool, rounds: int = 20) -> list[float]:
    """From kill -9 of a busy worker to the Failed of its span."""
    noticed = []
    for number in range(rounds):
        begin(pool, task(str(number), seconds=60.0))
        pid = next(device.worker_pid for device in pool.devices() if device.state == "busy")
        assert pid is not None
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        ended(pool)
        noticed.append(time.monotonic() - began)
        poll_until(pool, lambda event: isinstance(event, DeviceChanged) and event.device.state == "idle")
    return noticed


def scaling(strategy: str, count: int, folder: str) -> float:
    """Seconds of work done in a second: 40 jobs of one span, or one job of 16 spans."""
    if strategy == "queue":
        jobs = [task(str(number), SPAN_S) for number in range(40)]
    else:
        jobs = [task("one", SPAN_S, spans=16, strategy=strategy)]
    with open_pool(count, folder) as pool:
        began = time.monotonic()
        run_all(pool, jobs)
        return SPAN_S * sum(len(job.todo) for job in jobs) / (time.monotonic() - began)


def spread(seconds: Sequence[float]) -> str:
    ordered = [1000 * second for second in sorted(seconds)]
    return f"median {statistics.median(ordered):.2f} ms, p99 {ordered[int(0.99 * (len(ordered) - 1))]:.2f} ms"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 4):
            print(f"start of {count} workers       {start_up(count, folder):.2f} s")
        with open_pool(1, folder) as pool:
            print(f"free worker -> running   {spread(dispatch_latency(pool))}")
            print(f"dead worker noticed      {spread(death_notice(pool))}")
        for count in (1, 4):
            with open_pool(count, folder) as pool:
                print(f"dispatches, {count} workers    {dispatches_per_s(pool):.0f} a second")
        for strategy in ("queue", "split"):
            figures = ", ".join(f"{scaling(strategy, count, folder):.2f} at {count}" for count in (1, 2, 4))
            print(f"scaling of {strategy}         {figures} workers")


if __name__ == "__main__":
    main()
