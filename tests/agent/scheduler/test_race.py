"""Races: which videos are made of a job, how good each is, and which is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.jobs.spec import JobSpec, MotionSpec, RaceSpec
from agent.scheduler.race import Entrant, MadeVideo, Race, list_entrants, score_figures
from agent.settings import QualitySettings
from models.catalog import EngineChoice
from models.types import EngineError, Request

LIMITS = QualitySettings().model_dump()
GOOD: dict[str, Any] = {
    **{"frames_measured": 100, "sharpness": 0.9, "drift": 0.95, "jitter": 0.1, "seam": 1.0},
    **{"no_face": 0.0, "sync": 0.85, "lag_ms": 0.0, "silent_motion": 0.0},
}


def a_spec(**keys: Any) -> JobSpec:
    return JobSpec(avatar="face.jpg", audio="voice.wav", **keys)


def choose(asked: str) -> EngineChoice:
    return EngineChoice("preview" if asked == "auto" else asked, "cpu", "")


def list_seeds(spec: JobSpec) -> list[tuple[str, int | None]]:
    return [(one.choice.engine, one.seed) for one in list_entrants(spec, choose).entrants]


def test_a_job_without_a_race_is_one_video() -> None:
    """As it is asked for."""
    assert list_entrants(a_spec(engine="preview"), choose).entrants == [
        Entrant(a_spec(engine="preview"), choose("preview"))
    ]


def test_seeds_are_counted_from_that_of_the_job() -> None:
    """Of the clip with motion, else of the engine; MuseTalk has none, and is one video."""
    assert list_seeds(a_spec(race=RaceSpec(seeds=3), options={"seed": 5})) == [
        ("preview", 5),
        ("preview", 6),
        ("preview", 7),
    ]
    moving = a_spec(race=RaceSpec(seeds=2), motion=MotionSpec(seed=2**32 - 1), engine="musetalk")
    assert list_seeds(moving) == [("musetalk", 2**32 - 1), ("musetalk", 0)]
    both = a_spec(race=RaceSpec(seeds=2, engines=("musetalk", "preview")))
    assert list_seeds(both) == [("musetalk", None), ("preview", 0), ("preview", 1)]


def test_an_engine_that_can_not_run_loses() -> None:
    """The others run; where none can, the job fails as without a race."""

    def choose_preview(asked: str) -> EngineChoice:
        if asked == "musetalk":
            raise EngineError("engine_unavailable", "no weights", "")
        return choose(asked)

    race = list_entrants(a_spec(race=RaceSpec(engines=("musetalk", "preview"))), choose_preview)
    assert [one.choice.engine for one in race.entrants] == ["preview"]
    assert race.lost == [{"engine": "musetalk", "seed": None, "error": "no weights"}]
    with pytest.raises(EngineError, match="no weights"):
        list_entrants(a_spec(race=RaceSpec(seeds=2), engine="musetalk"), choose_preview)


@pytest.mark.parametrize(
    "fault",
    [
        *({"sharpness": 0.4}, {"drift": 0.6}, {"jitter": 0.9}, {"seam": 8.0}, {"no_face": 0.1}),
        *({"sync": 0.5}, {"lag_ms": -120.0}, {"silent_motion": 0.2}),
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_each_fault_costs(fault: dict[str, float]) -> None:
    """A video with a fault has the lower score, whichever comes first."""
    first, second = score_figures([{**GOOD, **fault}, GOOD], LIMITS)
    assert first is not None
    assert second is not None
    assert 0 <= first < second <= 100
    assert score_figures([GOOD, {**GOOD, **fault}], LIMITS) == [second, first]


def test_figures_that_are_not_known_of_all_do_not_count() -> None:
    """Nor does a lag that can't be told; a video that was not measured makes all scores unknown."""
    blind = [{**GOOD, "seam": None}, {**GOOD, "seam": 200.0}]
    assert len(set(score_figures(blind, LIMITS))) == 1
    deaf = [{**GOOD, "sync": 0.1, "lag_ms": lag} for lag in (0.0, 300.0)]
    assert len(set(score_figures(deaf, LIMITS))) == 1
    assert score_figures([GOOD, {}], LIMITS) == [None, None]


def a_race(*figures: dict[str, Any]) -> Race:
    """Return a race of seeds, all of which are made."""
    spec = a_spec(race=RaceSpec(seeds=len(figures)))
    race = list_entrants(spec, choose)
    for entrant, quality in zip(race.entrants, figures, strict=True):
        request = Request("preview", "a", "b", "/w", f"/o-{entrant.seed}", "/c", "/m")
        race.made.append(MadeVideo(entrant, {"quality": quality}, request, None, "cpu", ["cpu:0"], {"render": 1.5}))
    return race


def test_the_best_is_kept_and_all_scores_are_told() -> None:
    """The first of equals; the seconds of all count."""
    best, told = a_race({**GOOD, "seam": 20.0}, GOOD, GOOD).choose_best(LIMITS)
    assert Path(best.request.out) == Path("/o-1")
    assert [one["kept"] for one in told] == [False, True, False]
    assert told[0]["score"] < told[1]["score"] == told[2]["score"]
    assert [one["seed"] for one in told] == [0, 1, 2]
    assert a_race(GOOD, GOOD).sum_stage_seconds() == {"render": 3.0}
    assert a_race({}, {}).choose_best(LIMITS)[0].entrant.seed == 0
