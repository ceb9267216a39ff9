"""The progress bars of `submit --wait` and `wait`, as text."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from agent.cli.display.progress import JobProgress, describe_outcome
from tests.agent.cli.display.rows import JOB


def test_the_outcome_of_a_job() -> None:
    """A done job has its time, a failed one the code of its error, an unfinished one what it waits for."""
    assert describe_outcome({**JOB, "state": "done", "result": "a"}) == "in 1.2 s"
    assert describe_outcome({**JOB, "state": "failed", "error_code": "no_face"}) == "no_face"
    assert describe_outcome({**JOB, "state": "waiting", "waiting_for": "voice.wav"}) == "voice.wav"


def test_a_progress_bar_follows_its_job() -> None:
    """Each `show` updates the one bar of a job; a done job is complete."""
    with JobProgress(Console(width=120, force_terminal=False, quiet=True)) as progress:
        progress.show([JOB])
        [bar] = progress.progress.tasks
        assert (bar.completed, bar.total, bar.fields["frames"]) == (20, 50, "20/50")
        progress.show([{**JOB, "state": "done", "result": "a"}])
        assert (bar.completed, bar.fields["frames"]) == (50, "50 frames")


def test_a_long_reason_leaves_name_and_state_whole() -> None:
    """In 80 columns the reason is cut, not what stands before it."""
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture, JobProgress(console) as progress:
        progress.show([{**JOB, "name": "hello", "state": "waiting", "frames": None, "waiting_for": "a reason " * 20}])
    assert capture.get().split()[:2] == ["hello", "waiting"]


def test_the_end_of_a_job_fits_into_a_line() -> None:
    """In 80 columns a done job and one that failed have a line each; where the video is, is said below."""
    console = Console(width=80, force_terminal=False)
    ends: list[dict[str, Any]] = [
        {"state": "done", "result": "a" * 40, "run_seconds": 1234.5},
        {"state": "failed", "error_code": "no_face"},
    ]
    with console.capture() as capture, JobProgress(console) as progress:
        progress.show([{**JOB, **end, "uid": str(number)} for number, end in enumerate(ends)])
    assert len(capture.get().strip().splitlines()) == 2
