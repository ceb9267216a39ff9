"""One claimed attempt: which stage it is in by what lies on disk, and what is left to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.scheduler.attempt import Run
from gpu_pool.types import Progress, Span, grid
from models.types import Inspection, Request
from tests.agent.samples import a_ledger, add_job

FRAMES = 100


@pytest.fixture
def run(tmp_path: Path) -> Run:
    job = add_job(a_ledger(tmp_path), "u1", strategy="split")
    folders = {name: str(tmp_path / name) for name in ("work", "out", "cache", "models_dir")}
    (tmp_path / "work").mkdir()
    request = Request(engine="preview", avatar="a", audio="b", **folders)
    return Run(job, "token", request, "cpu", None)


def looked_at(run: Run) -> Inspection:
    units = {"inspect": 1, "prepare": 1, "render": FRAMES, "assemble": 1}
    outline = Inspection(FRAMES, "25", 64, 64, 4.0, units)
    (run.request.files.work / "input").mkdir()
    run.request.files.avatar.touch()
    run.request.files.audio.touch()
    return outline


def part(run: Run, span: Span) -> None:
    run.request.files.parts.mkdir(exist_ok=True)
    run.request.files.part_path(span.start, span.stop).touch()


def test_a_new_job_starts_by_being_looked_at(run: Run) -> None:
    """Nothing is on disk: the first stage is inspect, one span on a CPU device."""
    run.enter(0.0)
    task = run.task(())
    assert (run.stage, task.kind, task.todo, task.id) == ("inspect", "cpu", (Span(0, 1),), "token/inspect")


def test_a_job_goes_on_where_its_files_say(run: Run) -> None:
    """With a snapshot, a preparation and some parts on disk, only the missing parts are left."""
    run.outline = looked_at(run)
    run.request.files.prepared.mkdir()
    spans = grid(FRAMES)
    for span in spans[:2]:
        part(run, span)
    run.enter(0.0)
    assert run.stage == "render"
    assert run.task((spans[2],)).todo == spans[3:]
    assert run.units_done == spans[1].stop
    assert run.units_total == FRAMES


def test_a_snapshot_that_is_gone_is_taken_again(run: Run) -> None:
    """An outline without its media means to look again."""
    run.outline = looked_at(run)
    run.request.files.avatar.unlink()
    run.enter(0.0)
    assert run.stage == "inspect"


def make_prepared_part(run: Run, span: Span) -> None:
    run.request.files.prepared_part_path(span.start, span.stop).mkdir(parents=True)


def test_a_preparation_of_many_units_is_cut_and_joined_last(run: Run) -> None:
    """Parts on disk count; the span that joins them is left until all of them are there, and its result is the end."""
    run.outline = replace(looked_at(run), units={"inspect": 1, "prepare": 60, "render": FRAMES, "assemble": 1})
    cut, join = grid(60), Span(60, 61)
    make_prepared_part(run, cut[0])
    run.enter(0.0)
    assert run.stage == "prepare"
    assert run.task(()).todo == cut[1:]
    assert run.task((cut[1],)).todo == cut[2:]
    assert (run.units_done, run.units_total) == (cut[0].units, 61)
    for span in cut[1:]:
        run.finish(span, "cpu:0")
    assert run.task(()).todo == (join,)
    assert not run.complete
    run.finish(join, "cpu:0")
    assert run.complete


def test_parts_that_were_joined_are_not_made_again(run: Run) -> None:
    """Once `prepared` is there, the preparation is over, whatever became of its parts."""
    run.outline = replace(looked_at(run), units={"inspect": 1, "prepare": 60, "render": FRAMES, "assemble": 1})
    run.request.files.prepared.mkdir()
    run.enter(0.0)
    assert run.stage == "render"


def test_the_preparation_starts_over_where_parts_are_missing(run: Run) -> None:
    """With all parts and no `prepared` only the join is left."""
    run.outline = replace(looked_at(run), units={"inspect": 1, "prepare": 60, "render": FRAMES, "assemble": 1})
    for span in grid(60):
        make_prepared_part(run, span)
    run.enter(0.0)
    assert (run.stage, run.task(()).todo) == ("prepare", (Span(60, 61),))


def test_when_all_parts_are_there_they_are_joined(run: Run) -> None:
    """The last stage is told every span, in order."""
    run.outline = looked_at(run)
    run.request.files.prepared.mkdir()
    for span in grid(FRAMES):
        part(run, span)
    run.enter(0.0)
    assert run.stage == "assemble"
    assert run.payload()["spans"] == [[span.start, span.stop] for span in grid(FRAMES)]


def test_progress_counts_finished_and_running_frames_once(run: Run) -> None:
    """A finished span counts in full, a running one as far as it is."""
    run.outline = looked_at(run)
    run.request.files.prepared.mkdir()
    run.enter(0.0)
    first, second, *_ = run.spans
    run.note(Progress("token/render", second.start, second.stop, 7))
    run.note(Progress("token/render", first.start, first.stop, 5))
    run.finish(first, "cpu:0")
    assert run.units_done == first.units + 7
    assert run.devices == ["cpu:0"]


def test_the_time_left_is_told_by_the_pace_of_this_run(run: Run) -> None:
    """Frames that lay on disk when the rendering began don't count as pace; before the first frame nothing is told."""
    run.outline = looked_at(run)
    run.request.files.prepared.mkdir()
    assert run.eta_s(5.0) is None, "not rendering yet"
    first, second, *_ = grid(FRAMES)
    part(run, first)
    run.enter(10.0)
    assert run.eta_s(11.0) is None, "no frame yet"
    run.note(Progress("token/render", second.start, second.stop, 7))
    assert run.eta_s(24.0) == 2.0 * (FRAMES - first.units - 7)


def test_time_is_booked_by_stage(run: Run) -> None:
    """Leaving a stage adds its seconds and enters the next that has something to do."""
    run.enter(10.0)
    run.outline = looked_at(run)
    run.leave(12.5)
    assert (run.stage, run.seconds) == ("prepare", {"inspect": 2.5})
