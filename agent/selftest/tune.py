"""`musedrop tune`: measure batch sizes, compiled code, encoders and workers on a device, and choose."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.clock import Clock
from agent.errors import UserError
from agent.scheduler.tuning import LARGEST_BATCH, Choice, Tuning, write_tunings
from agent.selftest.report import find_key
from agent.selftest.workers import DeviceWorkers, Target, open_workers
from agent.settings import Settings
from gpu_pool.types import Done, Failed
from models import catalog

BUDGETS_S = {"cuda": 900.0, "cpu": 3600.0}
PACE_S = 4.0
MOST_WORKERS = 4
GAIN = 1.03
"""How many times as fast something must be to take the place of what costs less memory, or is usual."""
Encoder = Literal["libx264", "h264_nvenc"]
USUAL_ENCODER: Encoder = "h264_nvenc"
ENCODERS: tuple[Encoder, ...] = (USUAL_ENCODER, "libx264")

Tell = Callable[[Target, str], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """What so many workers of a card did at once.

    fps           frames a second of all of them together
    cpu_s         CPU seconds a frame
    """

    workers: int
    encoder: Encoder
    fps: float
    cpu_s: float

    def estimate_fps(self, cards: int, cores: int) -> float:
        """Return frames a second where all cards do the same, which is what the processor can keep up with."""
        return min(cards * self.fps, cores / self.cpu_s if self.cpu_s else float("inf"))


def choose_batch(fps: Mapping[int, float]) -> int:
    """Return the smallest batch size than which no larger one is faster by more than 3 %.

    >>> choose_batch({1: 50.0, 4: 90.0, 8: 99.0, 16: 100.0})
    8
    """
    best = max(fps.values())
    return min(size for size, rate in fps.items() if rate * GAIN >= best)


def choose_pace(paces: Sequence[Pace], cards: int, cores: int) -> Pace:
    """Return the pace of the fewest workers that is within 3 % of the best, with the usual encoder if that is, too."""
    best = max(pace.estimate_fps(cards, cores) for pace in paces)
    near = [pace for pace in paces if pace.estimate_fps(cards, cores) * GAIN >= best]
    return min(near, key=lambda pace: (pace.workers, pace.encoder != USUAL_ENCODER))


def tune_devices(settings: Settings, targets: Sequence[Target], tell: Tell, cards: int = 1) -> list[Tuning]:
    """Measure the devices one after the other; write tune.json after each.

    `cards`: how many do the same when jobs run, whichever of them are measured.
    `tell` gets a sentence before each step. Raises UserError where a device can't be measured, or the file can't be
    written.
    """
    engine = catalog.ENGINES["musetalk"]
    if packages := catalog.find_missing_packages(engine):
        command = catalog.suggest_command(engine, settings.models_dir)
        raise UserError(f"nothing can be tuned: {', '.join(packages)} not installed; run `{command}`")
    tunings = []
    for target in targets:
        tunings.append(_tune(settings, target, cards, tell))
        try:
            write_tunings(settings.folders.tuning_file, tunings)
        except OSError as error:
            raise UserError(f"{settings.folders.tuning_file} can't be written: {error.strerror}") from error
    return tunings


def _tune(settings: Settings, target: Target, cards: int, tell: Tell) -> Tuning:
    key, began_s = find_key(settings, target), time.monotonic()
    folders = {"models_dir": str(settings.models_dir), "cache": str(settings.folders.cache)}
    cores = os.cpu_count() or 1
    count = MOST_WORKERS if target.kind == "cuda" else min(MOST_WORKERS, cores)
    with open_workers(settings, target, BUDGETS_S[target.kind], count) as workers:
        measuring = Measuring(workers, target, folders, lambda sentence: tell(target, sentence))
        choice, figures = measuring.choose(count, cards, cores)
    return Tuning(
        device=target.id,
        card=figures["card"],
        name=target.name,
        driver=key.driver,
        torch=key.torch,
        weights=key.weights,
        at_ms=Clock().at_ms(),
        seconds=round(time.monotonic() - began_s, 1),
        choice=choice,
        figures=figures,
    )


class Measuring:
    """The steps on one device. `tell` gets a sentence before each."""

    def __init__(
        self, workers: DeviceWorkers, target: Target, folders: Mapping[str, str], tell: Callable[[str], None]
    ) -> None:
        self._workers, self._target, self._folders, self._tell = workers, target, dict(folders), tell

    def choose(self, most_workers: int, cards: int, cores: int) -> tuple[Choice, dict[str, Any]]:
        """Measure everything; return what is best, and the figures. Raises UserError."""
        batches = self._ask("batch sizes", "batch rates")
        rates = {int(size): float(rate) for size, rate in batches["fps"].items() if int(size) <= LARGEST_BATCH}
        batch = choose_batch(rates)
        compiled = self._ask("compiled code", "compiled rate", batch=batch)
        compiles = float(compiled.get("fps", 0.0)) > GAIN * rates[batch]
        states = self._ask("encoders", "encoders")
        usable = [name for name in ENCODERS if states[name]["state"] == "usable"]
        if not usable:
            raise UserError(f"{self._target.id} can't be tuned: no encoder works; reinstall the package av")
        paces = list(self._measure_paces(most_workers, usable, batch=batch, compile=compiles))
        best = choose_pace(paces, cards, cores)
        choice = Choice(batch_size=batch, compile=compiles, encoder=best.encoder, workers=best.workers)
        told = [
            {"workers": pace.workers, "encoder": pace.encoder, "fps": pace.fps, "cpu_s": pace.cpu_s} for pace in paces
        ]
        figures = {
            "card": batches["card"],
            "networks": batches["networks"],
            "batches": {str(size): rate for size, rate in rates.items()},
            "compiled": dict(compiled),
            "paces": told,
            "cards": cards,
            "cores": cores,
        }
        return choice, figures

    def _measure_paces(self, most: int, encoders: Sequence[Encoder], **how: Any) -> Iterator[Pace]:
        """Yield what one worker does, then two, and so on, until they don't fit into memory or bring nothing more."""
        best = 0.0
        for count in range(1, most + 1):
            found = []
            for encoder in encoders:
                if pace := self._measure_pace(count, encoder, **how):
                    found.append(pace)
            yield from found
            fps = max((pace.fps for pace in found), default=0.0)
            if fps <= GAIN * best:
                return
            best = fps

    def _measure_pace(self, count: int, encoder: Encoder, **how: Any) -> Pace | None:
        """Return None where so many workers can't run; one must."""
        self._tell(f"{count} at once, {encoder}")
        asked = {"check": "pace", "encoder": encoder, **self._folders, **how}
        ends = self._workers.ask({**asked, "seconds": 0.0}, count)
        if not any(isinstance(end, Failed) for end in ends):
            ends = self._workers.ask({**asked, "seconds": PACE_S}, count)
        if failed := next((end for end in ends if isinstance(end, Failed)), None):
            if count > 1:
                return None
            raise self._explain(failed)
        told = [end.result for end in ends if isinstance(end, Done)]
        fps = sum(one["frames"] / one["seconds"] for one in told)
        cpu_s = sum(one["cpu_s"] for one in told) / sum(one["frames"] for one in told)
        return Pace(count, encoder, round(fps, 3), round(cpu_s, 5))

    def _ask(self, step: str, check: str, **more: Any) -> Mapping[str, Any]:
        self._tell(step)
        [end] = self._workers.ask({"check": check, **self._folders, **more})
        if isinstance(end, Failed):
            raise self._explain(end)
        return end.result

    def _explain(self, failed: Failed) -> UserError:
        hint = failed.hint or "`musedrop selftest` shows what is wrong"
        return UserError(f"{self._target.id} can't be tuned: {failed.message}; {hint}")
