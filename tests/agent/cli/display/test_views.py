"""What `status`, `devices` and `watch` draw at every width, as text."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.cli.display.views import (
    Dashboard,
    FrameRates,
    build_device_table,
    build_job_table,
    describe_counts,
    describe_gauges,
)
from agent.text import name_submitter
from tests.agent.cli.display.rows import DEVICE, DEVICES, JOB, JOBS, LONG, NOW, REASON

FRAMES = Path(__file__).parents[3] / "data" / "tables"
WIDTHS = (60, 80, 120, 200)


def print_text(drawn: Any, width: int = 200) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(drawn)
    return capture.get()


def make_dashboard(*, alarms: tuple[str, ...] = ()) -> Dashboard:
    counts = {"running": 1, "waiting": 1, "done": 1, "failed": 1, "queued": 0}
    return Dashboard(
        "musedrop  /srv/musedrop", JOBS, DEVICES, counts=counts, alarms=alarms, rates={"u1": 12.5}, now=NOW
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_a_screen_is_as_the_recorded_one(width: int) -> None:
    """At each width the dashboard with names of 240 characters is, character by character, the frame in tests/data."""
    shown = print_text(make_dashboard(alarms=("the queue is paused: `musedrop resume` lets it go on",)), width)
    path = FRAMES / f"dashboard-{width}.txt"
    if "MUSEDROP_RECORD" in os.environ:
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_name_leaves_room_for_everything(width: int) -> None:
    """State, done, device, since and what are there at every width; the name shows its beginning and its end."""
    shown = print_text(build_job_table(JOBS, NOW), width)
    assert all(len(line) <= width for line in shown.splitlines())
    for text in ("running", "40 %", "GPU-", "03:04:05", "render", "01-01 23:59", "2025-06-01", "in 1 s"):
        assert text in shown
    assert LONG[:4] in shown
    assert LONG[-4:] in shown
    assert REASON.replace(" ", "") in shown.replace(" ", "").replace("\n", "")


def test_a_running_job_shows_its_advice() -> None:
    """A line for each piece, safe for the terminal; once it is done, result.json has them."""
    advice = "the face is dark: use more light\nthe audio is clipped\x1b[2J"
    shown = print_text(build_job_table([{**JOB, "state": "running", "stage": "render", "advice": advice}], NOW))
    assert "the face is dark: use more light" in shown
    assert "the audio is clipped" in shown
    assert "\x1b[2J" not in shown
    assert "dark" not in print_text(
        build_job_table([{**JOB, "state": "done", "result": JOB["name"], "advice": advice}], NOW)
    )


def test_names_and_reasons_are_only_text() -> None:
    """Escape sequences and markup of a name are shown as text, in both tables."""
    shown = print_text(build_job_table([{**JOB, "waiting_for": "[red]\x1b[2J"}], NOW))
    assert "a\\x1b[2J" in shown
    assert "[red]\\x1b[2J" in shown
    assert "\x1b[2J" not in shown


def test_a_device_says_why_and_until_when() -> None:
    """The reason and the next attempt have a line of their own, in local time."""
    shown = print_text(build_device_table([{**DEVICE, "until": "2026-01-02T03:09:05.000Z"}], NOW))
    assert "it died (tried again at 03:09:05)" in shown


def test_a_card_that_shares_the_memory_of_the_machine() -> None:
    """It says so in the place of what is free; a lost card and a processor have no figure."""
    card = {**DEVICE, "device": "GPU-1", "kind": "cuda", "state": "idle", "reason": "", "until": None}
    rows = [card, {**card, "state": "lost"}, {**DEVICE, "until": None}]
    assert print_text(build_device_table(rows, NOW)).count("shared") == 1


def test_a_card_says_how_warm_and_busy_it_is() -> None:
    """What it doesn't tell is left out; a ledger of an earlier release has no such columns."""
    card = {**DEVICE, "device": "GPU-1", "kind": "cuda", "until": None, "job": None}
    card |= {"temperature_c": 61, "load_percent": 0, "power_w": None}
    shown = print_text(build_device_table([card], NOW), 160)
    assert "61 °C 0 %" in shown
    assert " W" not in shown
    assert describe_gauges(DEVICE) == ""


def test_the_dashboard_counts_and_warns() -> None:
    """The counts, what keeps jobs from running, a bar with frames, rate and the time left."""
    shown = print_text(make_dashboard(alarms=("no daemon is running since 03:05:00",)), 100)
    for text in (
        "1 running, 1 waiting, 1 done, 1 failed",
        "! no daemon is running",
        "20/50 frames, 12.5 fps, 2 s left",
    ):
        assert text in shown
    assert "━━" in shown
    assert describe_counts({}) == "no jobs yet"


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """Frames per second come from two looks at a job that renders; another stage has none."""
    rates = FrameRates()
    assert rates.measure(JOB, 1.0) == 0.0
    assert rates.measure({**JOB, "units_done": 45}, 3.0) == 12.5
    assert rates.measure({**JOB, "stage": "assemble"}, 4.0) == 0.0


def test_a_submitter_is_shown_by_name() -> None:
    """uid:N is the user of that number; a name that a job gives itself, and an unknown number, stay."""
    assert name_submitter(f"uid:{os.getuid()}") == pwd.getpwuid(os.getuid()).pw_name
    assert [name_submitter(text) for text in ("uid:4242424", "anna", "uid:", "")] == ["uid:4242424", "anna", "uid:", ""]
