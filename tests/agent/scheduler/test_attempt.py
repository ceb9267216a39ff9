"""One claimed attempt: which stage it is in by what lies on disk, and what is left to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.scheduler.attempt import Attempt
from gpu_pool.types import Progress, Span, grid
from models.motion.types import MotionFiles
from models.types import Animation, Inspection
from tests.agent.samples import a_ledger, a_request, add_job

FRAMES = 100


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    job = add_job(a_ledger(tmp_path), "u1", strategy="split")
    (tmp_path / "work").mkdir()
    return Attempt(job, "token", a_request(tmp_path), "cpu", None)


def looked_at(attempt: Attempt) -> Inspection:
    units = {"inspect": 1, "prepare": 1, "render": FRAMES, "assemble": 1}
    outline = Inspection(FRAMES, "25", 64, 64, 4.0, units)
    (attempt.request.files.work / "input").mkdir()
    attempt.request.files.avatar.touch()
    attempt.request.files.audio.touch()
    return outline


def part(attempt: Attempt, span: Span) -> None:
    attempt.request.files.parts.mkdir(exist_ok=True)
    attempt.request.files.part_path(span.start, span.stop).touch()


def test_a_new_job_starts_by_being_looked_at(attempt: Attempt) -> None:
    """Nothing is on disk: the first stage is inspect, one span on a CPU device."""
    attempt.enter_stage(0.0)
    task = attempt.make_task(())
    assert (attempt.stage, task.kind, task.todo, task.id) == ("inspect", "cpu", (Span(0, 1),), "token/inspect")


def test_a_job_goes_on_where_its_files_say(attempt: Attempt) -> None:
    """With a snapshot, a preparation and some parts on disk, only the missing parts are left."""
    attempt.inspection = looked_at(attempt)
    attempt.request.files.prepared.mkdir()
    spans = grid(FRAMES)
    for span in spans[:2]:
        part(attempt, span)
    attempt.enter_stage(0.0)
    assert attempt.stage == "render"
    assert attempt.make_task((spans[2],)).todo == spans[3:]
    assert attempt.units_done == spans[1].stop
    assert attempt.units_total == FRAMES


def test_a_snapshot_that_is_gone_is_taken_again(attempt: Attempt) -> None:
    """An outline without its media means to look again."""
    attempt.inspection = looked_at(attempt)
    attempt.request.files.avatar.unlink()
    attempt.enter_stage(0.0)
    assert attempt.stage == "inspect"


def make_prepared_part(attempt: Attempt, span: Span) -> None:
    attempt.request.files.prepared_part_path(span.start, span.stop).mkdir(parents=True)


def test_a_preparation_of_many_units_is_cut_and_joined_last(attempt: Attempt) -> None:
    """Parts on disk count; the span that joins them is left until all of them are there, and its result is the end."""
    attempt.inspection = replace(
        looked_at(attempt), units={"inspect": 1, "prepare": 60, "render": FRAMES, "assemble": 1}
    )
    cut, join = grid(60), Span(60, 61)
    make_prepared_part(attempt, cut[0])
    attempt.enter_stage(0.0)
    assert attempt.stage == "prepare"
    assert attempt.make_task(()).todo == cut[1:]
    assert attempt.make_task((cut[1],)).todo == cut[2:]
    assert (attempt.units_done, attempt.units_total) == (cut[0].units, 61)
    for span in cut[1:]:
        attempt.finish_span(span, "cpu:0")
    assert attempt.make_task(()).todo == (join,)
    assert not attempt.is_complete
    attempt.finish_span(join, "cpu:0")
    assert attempt.is_complete


def test_parts_that_were_joined_are_not_made_again(attempt: Attempt) -> None:
    """Once `prepared` is there, the preparation is over, whatever became of its parts."""
    attempt.inspection = replace(
        looked_at(attempt), units={"inspect": 1, "prepare": 60, "render": FRAMES, "assemble": 1}
    )
    attempt.request.files.prepared.mkdir()
    attempt.enter_stage(0.0)
    assert attempt.stage == "render"


def test_the_preparation_starts_over_where_parts_are_missing(attempt: Attempt) -> None:
    """With all parts and no `prepared` only the join is left."""
    attempt.inspection = replace(
        looked_at(attempt), units={"inspect": 1, "prepare": 60, "render": FRAMES, "assemble": 1}
    )
    for span in grid(60):
        make_prepared_part(attempt, span)
    attempt.enter_stage(0.0)
    assert (attempt.stage, attempt.make_task(()).todo) == ("prepare", (Span(60, 61),))


def test_when_all_parts_are_there_they_are_joined(attempt: Attempt) -> None:
    """The last stage is told every span, in order."""
    attempt.inspection = looked_at(attempt)
    attempt.request.files.prepared.mkdir()
    for span in grid(FRAMES):
        part(attempt, span)
    attempt.enter_stage(0.0)
    assert attempt.stage == "assemble"
    assert attempt.make_payload()["spans"] == [[span.start, span.stop] for span in grid(FRAMES)]


def test_progress_counts_finished_and_running_frames_once(attempt: Attempt) -> None:
    """A finished span counts in full, a running one as far as it is."""
    attempt.inspection = looked_at(attempt)
    attempt.request.files.prepared.mkdir()
    attempt.enter_stage(0.0)
    first, second, *_ = attempt.spans
    attempt.note_progress(Progress("token/render", second.start, second.stop, 7))
    attempt.note_progress(Progress("token/render", first.start, first.stop, 5))
    attempt.finish_span(first, "cpu:0")
    assert attempt.units_done == first.units + 7
    assert attempt.devices == ["cpu:0"]


def test_the_time_left_is_told_by_the_pace_of_this_run(attempt: Attempt) -> None:
    """Frames that lay on disk when the rendering began don't count as pace; before the first frame nothing is told."""
    attempt.inspection = looked_at(attempt)
    attempt.request.files.prepared.mkdir()
    assert attempt.eta_s(5.0) is None, "not rendering yet"
    first, second, *_ = grid(FRAMES)
    part(attempt, first)
    attempt.enter_stage(10.0)
    assert attempt.eta_s(11.0) is None, "no frame yet"
    attempt.note_progress(Progress("token/render", second.start, second.stop, 7))
    assert attempt.eta_s(24.0) == 2.0 * (FRAMES - first.units - 7)


def test_loading_a_model_counts_once_in_the_time_left(attempt: Attempt) -> None:
    """Before the first frame by what loading and frames took earlier; after it the frames have their own pace."""
    attempt.inspection = looked_at(attempt)
    attempt.stage, attempt.stage_started_s, attempt.usual_frame_s, attempt.load_s = "prepare", 10.0, 0.5, 30.0
    assert attempt.eta_s(14.0) == 26.0 + 0.5 * FRAMES
    assert attempt.eta_s(60.0) == 0.5 * FRAMES
    attempt.stage, attempt.stage_started_s, attempt.units_before = "render", 100.0, 0
    assert attempt.eta_s(110.0) == 20.0 + 0.5 * FRAMES
    attempt.note_progress(Progress("token/render", 0, 24, 10))
    assert attempt.eta_s(150.0) == 2.0 * (FRAMES - 10)


def test_time_is_booked_by_stage(attempt: Attempt) -> None:
    """Leaving a stage adds its seconds and enters the next that has something to do."""
    attempt.enter_stage(10.0)
    attempt.inspection = looked_at(attempt)
    attempt.leave_stage(12.5)
    assert (attempt.stage, attempt.stage_seconds) == ("prepare", {"inspect": 2.5})


def make_state(attempt: Attempt, step: int) -> None:
    files = MotionFiles(attempt.request.files.animation)
    files.folder.mkdir(exist_ok=True)
    files.state_path(step).touch()


def test_a_clip_is_one_task_for_each_step(attempt: Attempt) -> None:
    """The units of a step come before what adds them; the last task runs on a processor, whatever makes the clip."""
    attempt.inspection = replace(looked_at(attempt), animation=Animation("fake", "k" * 64, (4, 4), 7))
    attempt.motion_kind = "cuda"
    attempt.enter_stage(0.0)
    seen = []
    while attempt.stage == "animate":
        task = attempt.make_task(())
        seen.append((task.id.removeprefix("token/animate/"), task.kind, task.model, len(task.todo)))
        for span in attempt.spans:
            attempt.finish_span(span, "GPU-1")
        if attempt.step == len(attempt.tasks) - 1:
            attempt.inspection = replace(attempt.inspection, animation=None)
        assert attempt.is_complete
        attempt.leave_stage(1.0)
    assert seen == [
        ("0", "cuda", "fake", 1),
        ("1", "cuda", "fake", 4),
        ("2", "cuda", "fake", 4),
        ("3", "cuda", "fake", 1),
        ("4", "cpu", "", 1),
    ]
    assert attempt.stage == "prepare"


def test_a_clip_goes_on_with_the_units_that_are_not_on_disk(attempt: Attempt) -> None:
    """The latest state says the step, and its finished units count as progress."""
    attempt.inspection = replace(looked_at(attempt), animation=Animation("fake", "k" * 64, (4, 4)))
    make_state(attempt, 1)
    unit = MotionFiles(attempt.request.files.animation).unit_path(1, 2)
    unit.parent.mkdir()
    unit.touch()
    attempt.enter_stage(0.0)
    assert (attempt.stage, attempt.step) == ("animate", 2)
    assert [span.start for span in attempt.make_task(()).todo] == [0, 1, 3]
    assert (attempt.units_done, attempt.units_total) == (1 + 5 + 1, 1 + 5 + 5 + 1 + 1)
    attempt.finish_span(Span(0, 1), "cpu:0")
    assert attempt.eta_s(3.0) == 3.0 * 5


def test_a_first_part_is_made_once_while_others_are_rendered(attempt: Attempt) -> None:
    """Of a video that is longer than asked, when its first span is done and another is not, and once."""
    attempt.inspection = looked_at(attempt)
    attempt.request.files.prepared.mkdir()
    first, *others = grid(FRAMES)
    part(attempt, others[0])
    attempt.enter_stage(0.0)
    attempt.first_s = 3.5
    assert not attempt.can_show_first
    attempt.finish_span(first, "cpu:0")
    assert attempt.can_show_first
    task = attempt.make_first_task()
    assert (task.id, task.kind, task.payload["stage"], task.payload["stop"]) == (
        "token/first",
        "cpu",
        "first",
        first.stop,
    )
    attempt.first_s = 4.0
    assert not attempt.can_show_first
    attempt.first_s, attempt.has_first = 3.5, True
    assert not attempt.can_show_first
    attempt.has_first = False
    for span in others:
        attempt.finish_span(span, "cpu:0")
    assert not attempt.can_show_first
