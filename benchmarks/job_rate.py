"""The pool's own figures, and how soon a row of the queue is a running worker."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from agent.daemon import milliseconds
from agent.fs import make_folders
from agent.jobs.parse import pair_media
from agent.ledger.ledger import Ledger
from agent.scheduler.devices import Devices
from agent.scheduler.dispatcher import Dispatch
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


class Nowhere:
    """Where results go that nobody wants."""

    def assembled(self, *_: object) -> None:
        pass

    def repeat(self, *_: object) -> bool:
        return False


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
            dispatch = Dispatch(settings, ledger, Devices(ledger, pool), Nowhere())
            return [_one(dispatch, f"job{number}") for number in range(rounds)]
    finally:
        ledger.close()


def _one(dispatch: Dispatch, uid: str) -> float:
    while not all(device.state == "idle" for device in dispatch.pool.devices()):
        dispatch.collect(1.0, time.monotonic, milliseconds)
    spec = pair_media(uid, "face.jpg", "voice.wav")
    media = {role: {"given": role, "path": role} for role in ("avatar", "audio")}
    job = dispatch.ledger.transitions.add(uid, uid, spec, at_ms=milliseconds())
    began = time.monotonic()
    dispatch.ledger.transitions.queue(job, media, at_ms=milliseconds())
    dispatch.dispatch(time.monotonic(), milliseconds())
    run = dispatch.runs[uid]
    while run.outline is None:
        dispatch.collect(1.0, time.monotonic, milliseconds)
    dispatch.close_cancelled(run.job, milliseconds())
    return float(run.outline.details["began"]) - began
