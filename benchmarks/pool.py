"""What the pool costs on this machine, with real workers that do nothing or sleep.

python -m benchmarks.pool [--json]
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agent.clock import Clock
from agent.fs.folders import make_folders
from agent.jobs.parse import pair_media
from agent.ledger.ledger import Ledger
from agent.scheduler.devices import Devices
from agent.scheduler.dispatcher import Dispatcher
from agent.settings import CurrentSettings
from agent.settings_file import format_settings, load_settings
from gpu_pool.backoff import Backoff
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import DeviceChanged, Done, Event, Failed, PoolEvent, Span, Task


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    jobs         how many jobs are timed from queued to running
    dispatches   how many spans are timed from the decision to the handler
    deaths       how many workers are killed
    flood        spans that take no time, for dispatches a second
    queue_spans  how many tasks of one span `queue` runs
    split_spans  how many spans the task has that `split` runs
    span_s       how long a span of those sleeps
    workers      how many workers share those spans, in turn
    """

    jobs: int = 100
    dispatches: int = 500
    deaths: int = 20
    flood: int = 5000
    queue_spans: int = 40
    split_spans: int = 16
    span_s: float = 0.25
    workers: tuple[int, ...] = (1, 2, 4)


def main() -> None:
    figures = measure(Effort())
    if "--json" in sys.argv[1:]:
        print(json.dumps(figures, indent=2))
        return
    for name, figure in figures.items():
        print(f"{name:<28} {figure:g}")


def measure(effort: Effort) -> dict[str, float]:
    """Return the figures by name.

    A scaling is seconds of sleep done in a second: 4.0 is perfect for four workers.
    """
    most = max(effort.workers)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures |= summarise("queued_to_running", time_queued_to_running(folder, effort.jobs))
        for count in (1, most):
            figures[f"start_of_{count}_s"] = time_start(count, folder)
        with open_pool(1, folder) as pool:
            figures |= summarise("dispatch", time_dispatches(pool, effort.dispatches))
            figures |= summarise("death_noticed", time_death_notices(pool, effort.deaths))
        for count in (1, most):
            figures[f"dispatches_per_s_at_{count}"] = count_dispatches_per_s(count, effort.flood, folder)
        for strategy in ("queue", "split"):
            for count in effort.workers:
                figures[f"{strategy}_scaling_at_{count}"] = measure_scaling(strategy, count, effort, folder)
    return {name: round(figure, 3) for name, figure in figures.items()}


def summarise(name: str, seconds: Sequence[float]) -> dict[str, float]:
    ordered_ms = [1000 * second for second in sorted(seconds)]
    return {
        f"{name}_median_ms": statistics.median(ordered_ms),
        f"{name}_p99_ms": ordered_ms[int(0.99 * (len(ordered_ms) - 1))],
    }


# from a row of the ledger to a worker --------------------------------------------------------------------------------


def time_queued_to_running(folder: Path, jobs: int) -> list[float]:
    """Return seconds from the moment a job is queued to its handler's first line.

    That is: its row, the claim, both on disk, and the dispatch.
    """
    (folder / "musedrop.toml").write_text(format_settings(".", "./state"), encoding="utf-8")
    settings = load_settings(folder / "musedrop.toml")
    make_folders((*settings.folders.of_share, *settings.folders.of_state))
    ledger = Ledger(settings.folders.ledger)
    try:
        with open_pool(1, settings.folders.logs, "InspectHandler") as pool:
            clock = Clock()
            dispatcher = Dispatcher(CurrentSettings(settings), ledger, Devices(ledger, pool, clock), clock)
            return [time_job(dispatcher, f"job{number}") for number in range(jobs)]
    finally:
        ledger.close()


def time_job(dispatcher: Dispatcher, uid: str) -> float:
    while not all(device.state == "idle" for device in dispatcher.pool.devices()):
        collect_events(dispatcher)
    spec, transitions, at_ms = pair_media(uid, "face.jpg", "voice.wav"), dispatcher.ledger.transitions, Clock().at_ms()
    media = {role: {"given": role, "path": role, "inode": 0, "size": 0, "mtime_ns": 0} for role in ("avatar", "audio")}
    job = transitions.add(uid, uid, spec, at_ms=at_ms)
    began_s = time.monotonic()
    transitions.queue(job, media, at_ms=at_ms)
    dispatcher.dispatch()
    attempt = dispatcher.attempts[uid]
    while attempt.inspection is None:
        collect_events(dispatcher)
    dispatcher.cancel(attempt.job)
    return float(attempt.inspection.details["began_s"]) - began_s


def collect_events(dispatcher: Dispatcher) -> None:
    """Do what a turn of the daemon does with the reports of workers."""
    events = dispatcher.wait(1.0)
    with dispatcher.ledger.together():
        dispatcher.collect(events)
        dispatcher.assign()
    dispatcher.release()


# the pool alone ------------------------------------------------------------------------------------------------------


@contextmanager
def open_pool(count: int, logs: Path, handler: str = "SleepHandler") -> Iterator[Pool]:
    """A pool whose workers are all ready."""
    handler = f"benchmarks.pool_handlers:{handler}"
    backend = LocalBackend(cpu_devices(count), handler=handler, handler_options={}, log_dir=logs)
    with Pool(backend, stall_s=60.0, backoff=Backoff(sick_after=1000, sick_s=0.01)) as pool:
        while not all(device.state == "idle" for device in pool.devices()):
            pool.poll(1.0)
        yield pool


def time_start(count: int, logs: Path) -> float:
    """Return seconds until so many workers are ready."""
    began_s = time.monotonic()
    with open_pool(count, logs):
        return time.monotonic() - began_s


def time_dispatches(pool: Pool, spans: int) -> list[float]:
    """Return seconds from the decision about a waiting task to the handler's first line."""
    latencies_s = []
    for number in range(spans):
        began_s = time.monotonic()
        start(pool, build_task(str(number)))
        latencies_s.append(wait_for_done(pool).result["began_s"] - began_s)
    return latencies_s


def time_death_notices(pool: Pool, deaths: int) -> list[float]:
    """Return seconds from kill -9 of a busy worker to the end of its span."""
    delays_s = []
    for number in range(deaths):
        start(pool, build_task(str(number), sleep_s=60.0))
        pid = next(device.worker_pid for device in pool.devices() if device.state == "busy")
        began_s = time.monotonic()
        os.kill(pid or 0, signal.SIGKILL)
        wait_for_event(pool, lambda event: isinstance(event, Event) and isinstance(event.message, Failed))
        delays_s.append(time.monotonic() - began_s)
        wait_for_event(pool, lambda event: isinstance(event, DeviceChanged) and event.device.state == "idle")
    return delays_s


def count_dispatches_per_s(count: int, spans: int, logs: Path) -> float:
    """Run one task of many spans that take no time on all workers."""
    with open_pool(count, logs) as pool:
        began_s = time.monotonic()
        run_all(pool, [build_task("flood", spans=spans, strategy="split")])
        return spans / (time.monotonic() - began_s)


def measure_scaling(strategy: str, count: int, effort: Effort, logs: Path) -> float:
    """Return seconds of sleep in a second, over many tasks of one span or one task of many."""
    if strategy == "queue":
        tasks = [build_task(str(number), effort.span_s) for number in range(effort.queue_spans)]
    else:
        tasks = [build_task("one", effort.span_s, effort.split_spans, strategy)]
    with open_pool(count, logs) as pool:
        began_s = time.monotonic()
        run_all(pool, tasks)
        return effort.span_s * sum(len(task.todo) for task in tasks) / (time.monotonic() - began_s)


def run_all(pool: Pool, tasks: Sequence[Task]) -> None:
    """Start what can start and wait, as the daemon does, until all spans are done."""
    todo = {task.id: list(task.todo) for task in tasks}
    while todo:
        for task in tasks:
            if todo.get(task.id):
                plan = pool.plan(replace(task, todo=tuple(todo[task.id][:16])), 0)
                for assignment in plan.assignments if plan else ():
                    todo[task.id].remove(assignment.span)
                if plan:
                    pool.start(plan)
        pool.poll(10.0)
        todo = {name: spans for name, spans in todo.items() if spans or pool.running_spans(name)}


def build_task(name: str, sleep_s: float = 0.0, spans: int = 1, strategy: str = "queue") -> Task:
    todo = tuple(Span(i, i + 1) for i in range(spans))
    return Task(name, "cpu", todo, strategy=strategy, payload={"sleep_s": sleep_s})


def start(pool: Pool, task: Task) -> None:
    plan = pool.plan(task, 0)
    if plan is None:
        raise RuntimeError("the worker isn't idle")
    pool.start(plan)


def wait_for_done(pool: Pool) -> Done:
    event = wait_for_event(pool, lambda event: isinstance(event, Event) and isinstance(event.message, Done | Failed))
    if not isinstance(event, Event) or not isinstance(event.message, Done):
        raise RuntimeError(f"the worker failed: {event}")
    return event.message


def wait_for_event(pool: Pool, is_wanted: Callable[[PoolEvent], bool]) -> PoolEvent:
    while True:
        for event in pool.poll(10.0):
            if is_wanted(event):
                return event


if __name__ == "__main__":
    main()
