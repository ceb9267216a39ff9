"""What the tray says, from the ledger and status.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import client
from agent.errors import UserError
from agent.languages import speak
from agent.ledger.reader import Unreadable
from agent.page.facts import read_status
from agent.results.video_file import find_video
from agent.settings import Settings
from agent.text import escape

RUNNING = "SELECT name, percent FROM job_status WHERE state = 'running' ORDER BY created_at"
RESULTS = (
    "SELECT name, result FROM job_status WHERE state = 'done' AND submitter <> 'draft'"
    " ORDER BY finished_at DESC LIMIT 3"
)


@dataclass(frozen=True, slots=True)
class TrayState:
    """What goes on.

    kind     idle, working, paused, trouble or away
    percent  mean progress of the running jobs
    lines    what the tooltip says below its title
    results  the newest videos: name and path
    """

    kind: str
    percent: float = 0.0
    lines: tuple[str, ...] = ()
    results: tuple[tuple[str, Path], ...] = field(default=())
    is_paused: bool = False


def read_state(settings: Settings, absence: str) -> TrayState:
    """Return what goes on. `absence`: why no daemon is at work, "" where one is."""
    status = read_status(settings)
    problems = tuple(escape(speak(str(text))) for text in status.get("problems", ()))
    is_paused = bool(status.get("paused"))
    try:
        db = client.open_ledger(settings)
        try:
            running, done = client.query(db, RUNNING), client.query(db, RESULTS)
            counts = client.count_jobs(db)
        finally:
            db.close()
    except (UserError, Unreadable) as error:
        return TrayState("away", lines=(speak(absence or str(error)),))
    results = tuple((escape(row["name"]), find_video(settings.folders.outbox / str(row["result"]))) for row in done)
    waiting = counts.get("queued", 0) + counts.get("waiting", 0)
    lines = (*(f"{escape(row['name'])}: {row['percent']:.0f} %" for row in running[:5]), speak(f"{waiting} waiting"))
    percent = sum(row["percent"] for row in running) / len(running) if running else 0.0
    kind = choose_kind(absence, problems, running, is_paused=is_paused)
    return TrayState(
        kind, percent, tuple(line for line in (speak(absence), *problems, *lines) if line), results, is_paused
    )


def choose_kind(absence: str, problems: tuple[str, ...], running: list[dict[str, Any]], *, is_paused: bool) -> str:
    """Return the kind of state, what a person should look at first."""
    if absence:
        return "away"
    if problems:
        return "trouble"
    if running:
        return "working"
    return "paused" if is_paused else "idle"
