"""What a worker says of a span: only what fits the request is believed, and nothing else ever raises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scheduler.reports import explain_refusal, make_plan, read_plan
from gpu_pool.types import Done, Failed, RunSpan
from models.types import Inspection, Output, Request
from tests.agent.samples import a_request

REQUEST = a_request(Path("/nowhere"))
UNITS = {"inspect": 1, "prepare": 1, "render": 96, "assemble": 1}
OUTLINE = json.loads(
    json.dumps(
        Inspection(96, "25", 64, 64, 3.84, UNITS, avatar_sha256="a" * 64, audio_sha256="b" * 64).to_dict(),
    )
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**12, "25", "0/0", [], {}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def ask(stage: str) -> RunSpan:
    return RunSpan(f"token/{stage}", 0, 1, {"stage": stage, "request": REQUEST.to_dict(), "outline": None})


def judge(result: dict[str, Any], stage: str = "inspect") -> str:
    return explain_refusal(ask(stage), Done("token/" + stage, 0, 1, 0.1, result))


def plan_again(outline: dict[str, Any], request: Request = REQUEST, makers: str = "") -> Inspection | None:
    """Return what is read of a plan of `REQUEST` for a later request."""
    found = read_plan(make_plan(outline, REQUEST, ""), request, makers)
    return found and found[0]


def test_what_fits_is_believed() -> None:
    """The results of all stages, as workers send them."""
    assert judge({"outline": OUTLINE}) == ""
    assert judge({}, "prepare") == judge({}, "render") == ""
    result = {"audio_codec": "pcm_s16le", "audio_copied": False, "encoder": "libx264", "notes": ["one"], "label": True}
    assert judge({**result, "musetalk": {"batch": 4}}, "assemble") == ""


@pytest.mark.parametrize("key", [key for key in OUTLINE if key in {"frames", "fps", "width", "units", "avatar_sha256"}])
def test_a_missing_key_is_refused(key: str) -> None:
    """An inspection without it can't be planned."""
    assert judge({"outline": {name: value for name, value in OUTLINE.items() if name != key}})


@pytest.mark.parametrize(
    "keys",
    [
        {"frames": 10**12},
        {"frames": 96.0},
        {"frames": "96"},
        {"frames": True},
        {"frames": 10**12, "units": {**UNITS, "render": 10**12}},
        {"duration_s": 4e10, "frames": 10**12, "units": {**UNITS, "render": 10**12}},
        {"duration_s": float("nan")},
        {"duration_s": float("inf")},
        {"fps": "0"},
        {"fps": "25/0"},
        {"fps": "1e9"},
        {"fps": "1000"},
        {"fps": "-25"},
        {"fps": 25},
        {"width": 63},
        {"width": 1 << 40},
        {"width": 16_384, "height": 16_384},
        {"height": -2},
        {"units": {}},
        {"units": []},
        {"units": {**UNITS, "render": 95}},
        {"units": {**UNITS, "prepare": 0}},
        {"units": {**UNITS, "prepare": 10**12}},
        {"units": {**UNITS, "inspect": 2}},
        {"units": {**UNITS, "more": 1}},
        {"encoder": "x"},
        {"avatar_sha256": "A" * 64},
        {"audio_sha256": ""},
        {"notes": ["x" * 10_000]},
        {"notes": ["x"] * 1000},
        {"notes": "x"},
        {"memory_bytes": -1},
        {"memory_bytes": 2**62},
        {"colour": {"primaries": 1000}},
        {"colour": None},
        {"layers": [{"role": "audio", "start_s": 1e308}]},
        {"details": 1},
        {"details": {"x": "\U0001f600" * 10_000}},
        {"notes": ["\U0001f600" * 1000] * 100},
        {"more": 1},
    ],
)
def test_an_inspection_out_of_range_is_refused(keys: dict[str, Any]) -> None:
    """Each key has a type and a range that follows from the limits of the request."""
    assert judge({"outline": {**OUTLINE, **keys}})
    assert plan_again({**OUTLINE, **keys}) is None


@pytest.mark.parametrize(
    ("stage", "result"),
    [
        ("inspect", {}),
        ("inspect", {"outline": None}),
        ("inspect", {"outline": OUTLINE, "more": 1}),
        ("render", {"more": 1}),
        ("prepare", {"outline": OUTLINE}),
        ("assemble", {"state": "failed"}),
        ("assemble", {"uid": "another"}),
        ("assemble", {"encoder": 1}),
        ("assemble", {"musetalk": []}),
        ("assemble", {"musetalk": {"x": [0] * 20_000}}),
    ],
)
def test_a_result_of_another_shape_is_refused(stage: str, result: dict[str, Any]) -> None:
    """Nothing of it may take the place of what the daemon knows."""
    assert judge(result, stage)


@pytest.mark.parametrize(
    "failed",
    [
        Failed("t", 0, 1, "no such code", "message"),
        Failed("t", 0, 1, "poison", "message"),
        Failed("t", 0, 1, "worker_died", "message"),
        Failed("t", 0, 1, "no_face", "message", fault="worker"),
        Failed("t", 0, 1, "no_face", "x" * 10_000),
        Failed("t", 0, 1, "no_face", "message", hint="x" * 10_000),
        Failed("t", 0, 1, "no_face", "message", detail="x" * 100_000),
    ],
)
def test_a_failure_that_no_engine_has_is_refused(failed: Failed) -> None:
    """The code is one of those that are published for workers, and the texts have a length."""
    assert explain_refusal(ask("inspect"), failed)


def test_failures_of_engines_are_believed() -> None:
    """A failure of the job, one of the worker, and the end of a cancelled span."""
    assert not explain_refusal(ask("inspect"), Failed("t", 0, 1, "no_face", "no face was found"))
    assert not explain_refusal(ask("render"), Failed("t", 0, 1, "out_of_memory", "CUDA", fault="worker"))
    assert not explain_refusal(ask("render"), Failed("t", 0, 1, "cancelled", "cancelled", fault="cancelled"))


@given(st.sampled_from(["inspect", "prepare", "render", "assemble"]), st.dictionaries(st.text(), JSON, max_size=3))
def test_any_result_is_judged(stage: str, result: dict[str, Any]) -> None:
    """Nothing raises, and what is believed of an inspection can be read."""
    judge(result, stage)


@given(st.dictionaries(st.sampled_from(list(OUTLINE)), JSON, min_size=1, max_size=3))
def test_any_inspection_is_judged(keys: dict[str, Any]) -> None:
    """An inspection with arbitrary values is refused, or is one that the daemon can read and plan."""
    outline = {**OUTLINE, **keys}
    if not judge({"outline": outline}):
        inspection = plan_again(outline)
        assert inspection is not None
        assert 0 < inspection.rate <= 120
        assert inspection.frames <= 120 * REQUEST.limits.audio_s + 2


@given(st.text(), st.text(), st.text(), st.sampled_from(["job", "worker"]))
def test_any_failure_is_judged(code: str, message: str, hint: str, fault: Any) -> None:
    """Nothing raises."""
    explain_refusal(ask("render"), Failed("t", 0, 1, code, message, hint, fault=fault))


@pytest.mark.parametrize(
    "keys",
    [
        {"layers": [{"role": "audio"}]},
        {"voices": [{"start": 0, "stop": 1}]},
        {"colour": {}},
        {"animation": {"engine": "musev", "key": "a" * 64, "units": [1]}},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_an_inspection_without_what_may_be_left_out_can_be_read(keys: dict[str, Any]) -> None:
    """What is believed never ends the daemon."""
    assert judge({"outline": {**OUTLINE, **keys}}) == ""
    assert Inspection.from_dict({**OUTLINE, **keys}) == plan_again({**OUTLINE, **keys})


def test_a_plan_of_an_earlier_version_is_read_or_made_anew() -> None:
    """One without colour tags is read; one that is no plan is none."""
    earlier = {key: value for key, value in OUTLINE.items() if key != "colour"}
    assert plan_again(earlier) == Inspection.from_dict(OUTLINE)
    assert plan_again({}) is plan_again({"frames": 1}) is None
    for data in (b"", b"{", b"[]", b"null", b'{"outline": {}}', b"[" * 100_000, b"\xff"):
        assert read_plan(data, REQUEST, "") is None


def test_a_plan_is_for_what_was_asked() -> None:
    """The quality of that time holds, a share that moved changes nothing; another engine, option or code does."""
    moved = replace(REQUEST, avatar="/elsewhere/face.jpg", work="/elsewhere", output=Output(crf=40, encoder="libx264"))
    found = read_plan(make_plan(OUTLINE, REQUEST, ""), moved, "")
    assert found == (Inspection.from_dict(OUTLINE), replace(moved, output=replace(moved.output, crf=18)))
    media = {"avatar": [1, 2, 3_000_000_000]}
    assert plan_again(OUTLINE, makers="others") is plan_again(OUTLINE, replace(REQUEST, marks=media)) is None
    for keys in ({"engine": "musetalk"}, {"options": {"seed": 1}}, {"fps": "30"}, {"output": Output(height=64)}):
        assert plan_again(OUTLINE, replace(REQUEST, **keys)) is None


def judge_whole(*, goes_on: bool = True, frames: int = 24, **more: Any) -> str:
    units = {"inspect": 1, "prepare": 1, "render": frames, "assemble": 1}
    outline = {**OUTLINE, "frames": frames, "duration_s": frames / 25, "units": units}
    result = {"outline": outline, "facts": {"notes": []}, "stage_seconds": dict.fromkeys(UNITS, 0.1), **more}
    result["stage_seconds"] and result["stage_seconds"].pop("inspect", None)
    run = ask("inspect")
    run = RunSpan(run.task, 0, 1, {**run.payload, "goes_on": goes_on})
    return explain_refusal(run, Done(run.task, 0, 1, 0.1, {key: value for key, value in result.items() if value != {}}))


def test_all_stages_of_a_short_job_are_believed_if_asked_for() -> None:
    """A worker may do a short job at once; the results of later stages are refused where they can't be."""
    assert judge_whole() == ""
    assert "other stages" in judge_whole(goes_on=False)
    assert "other stages" in judge_whole(frames=25)
    assert "other stages" in judge_whole(stage_seconds={})
    assert "other stages" in judge_whole(facts={})
    assert "stage_seconds.render" in judge_whole(stage_seconds={"prepare": 0.1, "render": -1.0, "assemble": 0.1})
    assert "facts.encoder" in judge_whole(facts={"encoder": "rm"})
