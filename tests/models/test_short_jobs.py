"""All stages of a short job in one exchange with its worker, and what a failure on the way leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.handler import Handler
from models.short_jobs import run_short_job
from models.types import SHORT_FRAMES, EngineError, Inspection, ProgressCallback, Request, is_short
from tests.share import face, voice


def make_outline(frames: int = 24, prepare: int = 1, side: int = 64) -> dict[str, Any]:
    units = {"inspect": 1, "prepare": prepare, "render": frames, "assemble": 1}
    return Inspection(frames, "25", side, side, frames / 25, units).to_dict()


@pytest.mark.parametrize(
    ("outline", "expected"),
    [
        (make_outline(), True),
        (make_outline(frames=25), False),
        (make_outline(prepare=2), False),
        (make_outline(side=4096), False),
    ],
)
def test_what_is_short(outline: dict[str, Any], expected: bool) -> None:
    """One span of rendering, one of preparation, and not more pixels than a second of full HD."""
    assert is_short(outline) is expected


class Steps:
    """A handler that notes what it is asked for; `fails` is the stage that does."""

    def __init__(self, outline: dict[str, Any], fails: str = "") -> None:
        self.outline, self.fails = outline, fails
        self.asked: list[tuple[str, int, int]] = []

    def run(self, payload: dict[str, Any], start: int, stop: int, progress: ProgressCallback) -> dict[str, Any]:
        self.asked.append((payload["stage"], start, stop))
        progress(stop)
        if payload["stage"] == self.fails:
            raise EngineError("bad_option", "no", "yes")
        if payload["stage"] == "inspect":
            return {"outline": self.outline}
        assert payload["outline"] == self.outline
        return {"notes": []} if payload["stage"] == "assemble" else {}


def run(steps: Steps) -> tuple[dict[str, Any], set[int]]:
    units = set[int]()
    return run_short_job(steps.run, {"stage": "inspect", "goes_on": True}, units.add), units


def test_all_stages_are_done_with_the_spans_of_the_grid() -> None:
    """The result is that of the inspection, with what `assemble` returned and the seconds of the other stages."""
    steps = Steps(make_outline())
    result, units = run(steps)
    assert steps.asked == [("inspect", 0, 1), ("prepare", 0, 1), ("render", 0, 24), ("assemble", 0, 1)]
    assert (result["outline"], result["facts"]) == (steps.outline, {"notes": []})
    assert list(result["stage_seconds"]) == ["prepare", "render", "assemble"]
    assert units == {0}, "the span of an inspection has one unit, which is not done before the end"


def test_a_longer_job_is_only_inspected() -> None:
    """Other workers may share what follows."""
    steps = Steps(make_outline(frames=48))
    assert run(steps)[0] == {"outline": steps.outline}
    assert steps.asked == [("inspect", 0, 1)]


@pytest.mark.parametrize("stage", ["prepare", "render", "assemble"])
def test_a_failure_of_a_later_stage_is_left_to_that_stage(stage: str) -> None:
    """The inspection is reported as if nothing else had been tried; an inspection that fails raises."""
    steps = Steps(make_outline(), stage)
    assert run(steps)[0] == {"outline": steps.outline}
    with pytest.raises(EngineError):
        run(Steps(make_outline(), "inspect"))


def test_the_video_is_the_same_as_stage_by_stage(tmp_path: Path) -> None:
    """A real engine, once in one exchange and once in four: the same bytes."""
    (tmp_path / "face.jpg").write_bytes(face(256))
    (tmp_path / "voice.wav").write_bytes(voice(0.4))
    media = [str(tmp_path / name) for name in ("face.jpg", "voice.wav")]
    videos = []
    for name in ("whole", "stages"):
        work, out = tmp_path / name, tmp_path / "staging" / name
        work.mkdir()
        out.parent.mkdir(exist_ok=True)
        places = (str(work), str(out), str(tmp_path / "cache"), str(tmp_path))
        request = Request("preview", media[0], media[1], *places)
        payload: dict[str, Any] = {
            "stage": "inspect",
            "request": request.to_dict(),
            "outline": None,
            "goes_on": name == "whole",
        }
        handler = Handler("cpu:0")
        result = handler.run(payload, 0, 1, lambda _: None)
        assert ("facts" in result) is (name == "whole")
        if name == "stages":
            frames = result["outline"]["frames"]
            payload |= {"outline": result["outline"], "spans": [[0, frames]]}
            for stage, units in (("prepare", 1), ("render", frames), ("assemble", 1)):
                handler.run({**payload, "stage": stage}, 0, units, lambda _: None)
        videos.append((out / "result.mp4").read_bytes())
    assert videos[0] == videos[1]
    assert SHORT_FRAMES == 24, "the longest video that is one span of the grid"
