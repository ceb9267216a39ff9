"""The pool's own figures, and how soon a row of the queue is a running worker."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.fs import make_folders
from agent.jobs.parse import pair_media
from agent.ledger.ledger import Ledger
from agent.scheduler.devices import Devices
from agent.scheduler.dispatcher import Dispatcher
from agent.settings import CurrentSettings
from agent.settings_file import format_settings, load_settings
from benchmarks.pool_rate import Effort, bench
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from models.types import Inspection

ROUNDS = 100


class Beginner:
    """The handler: says when it began, as what it found out about the media."""

    def __init__(self, *_: object) -> None:
        pass

    def run(self, *_: object) -> dict[str, Any]:
        began = time.monotonic()  # the same clock in every process
        return {"outline": Inspection(1, "25", 2, 2, 0.04, {}, details={"began": began}).to_dict()}


def figures(effort: Effort | None = None, rounds: int = ROUNDS) -> dict[str, float]:
    """All figures by name, those of the pool as `benchmarks.pool_rate` describes them."""
    with tempfile.TemporaryDirectory() as folder:
        latencies_ms = [1000 * second for second in queued_to_running(Path(folder), rounds)]
    return {"queued_to_running_median_ms": round(statistics.median(latencies_ms), 3), **bench(effort)}


def queued_to_running(folder: Path, rounds: int) -> list[float]:
    """Seconds from a job's being queued to its worker's first line: row, claim, both on disk, dispatch."""
    (folder / "musedrop.toml").write_text(format_settings(".", "./state"), encoding="utf-8")
    settings = load_settings(folder / "musedrop.toml")
    make_folders((*settings.folders.of_share, *settings.folders.of_state))
    ledger = Ledger(settings.folders.ledger)
    logs = settings.folders.logs
    backend = LocalBackend(cpu_devices(1), handler="benchmarks.job_rate:Beginner", handler_options={}, log_dir=logs)
    try:
        with Pool(backend, stall_s=60.0) as pool:
            clock = Clock()
            dispatcher = Dispatcher(CurrentSettings(settings), ledger, Devices(ledger, pool, clock), clock)
            return [_measure_start(dispatcher, f"job{number}") for number in range(rounds)]
    finally:
        ledger.close()


def _measure_start(dispatcher: Dispatcher, uid: str) -> float:
    while not all(device.state == "idle" for device in dispatcher.pool.devices()):
        _collect(dispatcher)
    spec, transitions, at_ms = pair_media(uid, "face.jpg", "voice.wav"), dispatcher.ledger.transitions, Clock().at_ms()
    media = {role: {"given": role, "path": role} for role in ("avatar", "audio")}
    job = transitions.add(uid, uid, spec, at_ms=at_ms)
    began = time.monotonic()
    transitions.queue(job, media, at_ms=at_ms)
    dispatcher.dispatch()
    attempt = dispatcher.attempts[uid]
    while attempt.inspection is None:
        _collect(dispatcher)
    dispatcher.cancel(attempt.job)
    return float(attempt.inspection.details["began"]) - began


def _collect(dispatcher: Dispatcher) -> None:
    """Do what a turn of the daemon does with the reports of workers."""
    events = dispatcher.wait(1.0)
    with dispatcher.ledger.together():
        dispatcher.collect(events)
        dispatcher.assign()
    dispatcher.release()
