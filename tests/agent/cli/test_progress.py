"""Tables and progress bars, as text."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from agent.cli.progress import JobProgress, build_dashboard, build_device_table, describe_outcome

JOB = {"uid": "u1", "name": "a\x1b[2J", "state": "running", "stage": "render", "frames": 50, "units_done": 20}
JOB |= {"percent": 40.0, "engine": None, "engine_asked": "auto", "device": "cpu:0", "since": "2026-01-02T03:04:05Z"}
JOB |= {"error_message": None, "waiting_for": None, "result": None, "run_seconds": 1.25}
DEVICE = {"device": "cpu:0", "kind": "cpu", "name": "CPU", "state": "sick", "job": None, "model": "", "worker_pid": 7}
DEVICE |= {"total_mib": 0, "held_mib": 0, "free_mib": 0, "since": "2026-01-02T03:04:05Z", "reason": "it died"}


def print_text(drawn: Any) -> str:
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture:
        console.print(drawn)
    return capture.get()


def test_the_dashboard_shows_jobs_and_devices() -> None:
    """A running job has its stage, a device its reason and next attempt; escape sequences are visible text."""
    shown = print_text(build_dashboard([JOB], [{**DEVICE, "until": "2026-01-02T03:09:05Z"}], "musedrop"))
    for text in ("a\\x1b[2J", "render", "40 %", "auto", "it died (tried again at 03:09:05 UTC)"):
        assert text in shown
    assert "\x1b[2J" not in shown


def test_a_card_that_shares_the_memory_of_the_machine() -> None:
    """It says so in the place of what is free; a lost card and a processor have no figure."""
    card = {**DEVICE, "device": "GPU-1", "kind": "cuda", "state": "idle", "reason": "", "until": None}
    rows = [card, {**card, "state": "lost"}, {**DEVICE, "until": None}]
    assert print_text(build_device_table(rows)).count("shared") == 1


def test_the_outcome_of_a_job() -> None:
    """A done job has its folder and time, a failed one its error, an unfinished one what it waits for."""
    assert describe_outcome({**JOB, "state": "done", "result": "a"}) == "outbox/a  1.2 s"
    assert describe_outcome({**JOB, "state": "failed", "error_message": "no face"}) == "no face"
    assert describe_outcome({**JOB, "state": "waiting", "waiting_for": "voice.wav"}) == "voice.wav"


def test_a_progress_bar_follows_its_job() -> None:
    """Each `show` updates the one bar of a job; a done job is complete."""
    with JobProgress(Console(width=120, force_terminal=False, quiet=True)) as progress:
        progress.show([JOB])
        [bar] = progress.progress.tasks
        assert (bar.completed, bar.total, bar.fields["frames"]) == (20, 50, "20/50")
        progress.show([{**JOB, "state": "done", "result": "a"}])
        assert (bar.completed, bar.fields["frames"]) == (50, "50 frames")
