"""Which files a span reads and makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.scheduler.span_files import list_span_files
from gpu_pool.cluster.courier import SpanFiles
from gpu_pool.types import RunSpan
from models.types import Animation, Inspection, Request

SHA = "c" * 64


def make_run(folder: Path, stage: str, start: int = 0, stop: int = 1, **more: Any) -> RunSpan:
    units = {"prepare": more.pop("parts", 1), "render": 48}
    animation = Animation("musev", "d" * 64, (2, 2))
    outline = Inspection(48, "25", 64, 64, 2.0, units, avatar_sha256=SHA, animation=animation)
    request = Request("preview", "/share/a.jpg", "/share/a.wav", f"{folder}/work/1", "/o", f"{folder}/cache", "/m")
    return RunSpan(
        "t", start, stop, {"stage": stage, "request": request.to_dict(), "outline": outline.to_dict(), **more}
    )


def list_names(run: RunSpan, folder: Path) -> tuple[set[str], set[str], set[str]]:
    found = list_span_files(run)
    return (
        {str(path.relative_to(folder)) for path in found.reads},
        {str(path.relative_to(folder)) for path in found.makes},
        {str(path.relative_to(folder)) for path in found.may_make},
    )


GIVEN = {"work/1/input", "work/1/encoder"}
CACHED = {"work/1/encoder", "cache/*", f"cache/.avatars/{SHA}/*"}


def test_a_part_needs_the_preparation(tmp_path: Path) -> None:
    """And comes with what was measured in it."""
    reads, makes, may_make = list_names(make_run(tmp_path, "render", 24, 48), tmp_path)
    assert reads == {*GIVEN, "work/1/prepared"}
    assert makes == {"work/1/parts/0000024-0000048.mp4"}
    assert may_make == {"work/1/samples/0000024-0000048.npz", "work/1/encoder", "work/1/painted.json"}


def test_a_preparation_is_given_what_was_made_of_the_avatar_before(tmp_path: Path) -> None:
    """On whichever machine; what has been removed since is left out."""
    (tmp_path / "cache" / "key").mkdir(parents=True)
    index = tmp_path / "cache" / ".avatars" / SHA
    index.mkdir(parents=True)
    (index / "key").touch()
    (index / "removed").touch()
    reads, makes, may_make = list_names(make_run(tmp_path, "prepare"), tmp_path)
    assert reads == {*GIVEN, "work/1/preparing", "cache/key"}
    assert (makes, may_make) == ({"work/1/prepared"}, CACHED)


def test_a_preparation_of_several_units_is_joined_of_its_parts(tmp_path: Path) -> None:
    """Only the one that joins them makes all of it."""
    part = list_names(make_run(tmp_path, "prepare", 0, 24, parts=48), tmp_path)
    assert part == (GIVEN, {"work/1/preparing/0000000-0000024"}, CACHED)
    joined = list_names(make_run(tmp_path, "prepare", 48, 49, parts=48), tmp_path)
    assert joined == ({*GIVEN, "work/1/preparing"}, {"work/1/prepared"}, CACHED)


@pytest.mark.parametrize(
    ("step", "unit", "reads", "makes"),
    [
        (0, 0, set(), "state-0000.safetensors"),
        (1, 1, {"state-0000.safetensors"}, "step-0000/unit-00001.safetensors"),
        (2, 2, {"state-0001.safetensors", "step-0001"}, "state-0002.safetensors"),
        (3, 0, {"state-0002.safetensors", "kept-0000.safetensors", "kept-0001.safetensors"}, "frames"),
    ],
)
def test_a_unit_of_a_clip_needs_its_step_alone(
    tmp_path: Path, step: int, unit: int, reads: set[str], makes: str
) -> None:
    """Not those before it, which are large."""
    run = make_run(tmp_path, "animate", unit, unit + 1, step=step)
    read, made, may_make = list_names(run, tmp_path)
    clip = {f"work/1/animation/{name}" for name in {"plan.json", "constants.safetensors", *reads}}
    assert read == GIVEN | clip
    assert made == {f"work/1/animation/{makes}"}
    beside = {0: {"work/1/animation/constants.safetensors"}, 2: {"work/1/animation/kept-0001.safetensors"}}
    assert may_make == beside.get(step, set())


def test_a_check_of_a_card_has_no_files() -> None:
    """It is no stage of a job."""
    assert list_span_files(RunSpan("t", 0, 1, {"stage": "selftest"})) == SpanFiles()
