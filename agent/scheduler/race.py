"""Races: several videos of a job are made one after the other, each by all its devices, and the best is kept.

The meter of the results decides (docs/quality.md). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from agent.jobs.spec import JobSpec
from gpu_pool.types import DeviceKind
from models.catalog import ENGINES, EngineChoice
from models.types import EngineError, Inspection, Request

HIGH_IS_GOOD = ("sharpness", "drift", "sync")
LOW_IS_GOOD = ("jitter", "seam", "no_face", "lag_ms", "silent_motion")


@dataclass(frozen=True, slots=True)
class Entrant:
    """One video that can be made of a job: what is asked for, and the engine that makes it."""

    spec: JobSpec
    choice: EngineChoice

    @property
    def seed(self) -> int | None:
        """What tells it from others of its engine; None where nothing does."""
        if self.spec.motion is not None:
            return self.spec.motion.seed
        return self.spec.options.get("seed", 0) if ENGINES[self.choice.engine].has_seed else None

    @property
    def folder(self) -> str:
        """The name of its work folder in that of the job: the same after a stop, whoever else takes part then."""
        seed = f"-{self.seed % 2**32}" if isinstance(self.seed, int) else ""
        return f"race-{self.choice.engine}{seed}"

    def add_motion(self, request: Request, engine: str, device_bytes: int) -> Request:
        """Return the request with what the engine of the clip is asked for, if there is to be one."""
        motion = self.spec.motion
        return request if motion is None else replace(request, motion=motion.to_request(engine, device_bytes))

    def describe(self) -> dict[str, Any]:
        return {"engine": self.choice.engine, "seed": self.seed}


@dataclass(frozen=True, slots=True)
class MadeVideo:
    """A video that was made and verified, with all of its attempt that the result tells."""

    entrant: Entrant
    facts: Mapping[str, Any]
    request: Request
    inspection: Inspection | None
    kind: DeviceKind
    devices: list[str]
    stage_seconds: dict[str, float]


@dataclass(slots=True)
class Race:
    """Who takes part, which of them is made now (`at`), and what became of those before it.

    lost    of those that failed or could not be started, what result.json says of them
    """

    entrants: Sequence[Entrant]
    lost: list[dict[str, Any]] = field(default_factory=list)
    made: list[MadeVideo] = field(default_factory=list)
    at: int = 0

    @property
    def entrant(self) -> Entrant:
        return self.entrants[self.at]

    def advance(self) -> bool:
        """Go to the next entrant; return whether there is one."""
        self.at += 1
        return self.at < len(self.entrants)

    def lose(self, why: str) -> None:
        """Note that the present entrant has failed."""
        self.lost.append({**self.entrant.describe(), "error": why})

    def choose_best(self, limits: Mapping[str, float]) -> tuple[MadeVideo, list[dict[str, Any]]]:
        """Return the best video, the first of equals, and what result.json says of all.

        limits   of the quality, by the names of the settings
        """
        figures = [one.facts.get("quality") or {} for one in self.made]
        scores = score_figures(figures, limits)
        best = max(range(len(self.made)), key=lambda number: (scores[number] or 0.0, -number))
        told = [
            {**one.entrant.describe(), "score": score, "kept": number == best, "quality": found}
            for number, (one, score, found) in enumerate(zip(self.made, scores, figures, strict=True))
        ]
        return self.made[best], [*told, *self.lost]

    def sum_stage_seconds(self) -> dict[str, float]:
        """Return the seconds of each stage of all videos together."""
        stages = dict.fromkeys(stage for one in self.made for stage in one.stage_seconds)
        return {stage: round(sum(one.stage_seconds.get(stage, 0.0) for one in self.made), 3) for stage in stages}


def list_entrants(spec: JobSpec, choose: Callable[[str], EngineChoice]) -> Race:
    """Return the race of a job; one without a race has one entrant.

    `choose` finds the engine for what is asked, or raises EngineError; that of the last engine is raised on where none
    can run.
    """
    race = spec.race
    if race is None:
        return Race([Entrant(spec, choose(spec.engine))])
    found, lost, error = list[Entrant](), list[dict[str, Any]](), None
    for engine in dict.fromkeys(race.engines or (spec.engine,)):
        try:
            choice = choose(engine)
        except EngineError as unavailable:
            error = unavailable
            lost.append({"engine": engine, "seed": None, "error": unavailable.message})
            continue
        found += (Entrant(one, choice) for one in _vary_seed(spec, choice, race.seeds))
    if error is not None and not found:
        raise error
    return Race(found, lost)


def _vary_seed(spec: JobSpec, choice: EngineChoice, seeds: int) -> Iterator[JobSpec]:
    """Yield the job once for each seed; once in all where nothing has one."""
    if spec.motion is not None:
        for number in range(seeds):
            seed = (spec.motion.seed + number) % 2**32
            yield spec.model_copy(update={"motion": spec.motion.model_copy(update={"seed": seed})})
        return
    first = spec.options.get("seed", 0)
    has_seed = ENGINES[choice.engine].has_seed and isinstance(first, int)
    yield spec
    for number in range(1, seeds if has_seed else 1):
        yield spec.model_copy(update={"options": {**spec.options, "seed": (first + number) % 2**32}})


def score_figures(figures: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> list[float | None]:
    """Return how good each video is, 0 to 100, by the figures that are known of all; None where there are none.

    >>> limits = {"max_seam": 6.0, "min_sync": 0.3}
    >>> score_figures([{"seam": 0.0, "sync": 0.9}, {"seam": 6.0, "sync": 0.9}], limits)
    [95.0, 70.0]
    """
    names = [name for name in (*HIGH_IS_GOOD, *LOW_IS_GOOD) if all(one.get(name) is not None for one in figures)]
    if "lag_ms" in names and any((one.get("sync") or 0.0) < limits["min_sync"] for one in figures):
        names.remove("lag_ms")  # it can't be told then
    if not names:
        return [None] * len(figures)
    return [round(100 * fmean(_rate(name, one[name], limits) for name in names), 1) for one in figures]


def _rate(name: str, value: float, limits: Mapping[str, float]) -> float:
    """Return how good a figure is, 0 to 1; one at its upper limit is half as good as none of it."""
    if name in HIGH_IS_GOOD:
        return min(1.0, max(0.0, value))
    limit = limits[f"max_{name}"]
    return limit / (limit + abs(value)) if limit else float(not value)
