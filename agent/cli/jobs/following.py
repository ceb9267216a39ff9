"""Waiting for jobs: their progress bars, their ends, and what to do while no daemon is running."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from agent import client
from agent.cli.console import console, error_console, speak
from agent.cli.display import progress
from agent.cli.jobs.choosing import require_job
from agent.cli.presence import NO_DAEMON, find_presence, warn_of_absence
from agent.intake.paths import fold_name
from agent.ledger.places import Places
from agent.ledger.reader import NoLedger, find_inputs
from agent.results.video_file import find_video
from agent.settings import Settings
from agent.text import escape_markup

POLL_S = 0.25
CLAIM_S = FILE_S = 2.0
ABSENCE_S = 30.0
"""How long a wait goes on without a daemon: a service that restarts is back by then."""
Tell = Callable[[Settings, dict[str, Any]], int]
"""Prints how a job ended, a row of job_status; returns an exit code."""
TIMED_OUT = 4
"""Exit code of a wait that ended by its --timeout."""


def follow_jobs(
    settings: Settings,
    source: Path,
    keys: Sequence[str],
    *,
    timeout_s: float | None = None,
    quiet: bool = False,
    tell: Tell | None = None,
) -> int:
    """Wait until the jobs with these ids or uids have ended; show their progress, then print how each ended.

    `tell`: prints the end of a job in the place of `print_outcome`.
    Return 0 if all are done, 1 if not, NO_DAEMON or TIMED_OUT where the wait was given up.
    """
    start_s = alive_s = time.monotonic()
    is_warned = False
    rows: dict[str, dict[str, Any]] = {}
    with progress.JobProgress(error_console if quiet else console) as board:
        while not all(key in rows and rows[key]["finished_at"] for key in keys):
            rows |= read_rows(settings, [key for key in keys if not (key in rows and rows[key]["finished_at"])])
            if not quiet:
                board.show(list(rows.values()))
            now_s = time.monotonic()
            if find_presence(settings).is_alive:
                alive_s, is_warned = now_s, False
            elif now_s - alive_s > CLAIM_S and not is_warned:
                is_warned = not warn_of_absence(settings, source)
            if now_s - alive_s > ABSENCE_S:
                error_console.print(
                    f"[yellow]![/] {speak(f'no daemon for {ABSENCE_S:g} s; the jobs go on when one is started')}"
                )
                return NO_DAEMON
            if timeout_s is not None and now_s - start_s > timeout_s:
                error_console.print(f"[yellow]![/] {speak(f'not finished after {timeout_s:g} s; the jobs go on')}")
                return TIMED_OUT
            time.sleep(POLL_S)
    wait_for_files(settings, [str(row["uid"]) for row in rows.values() if row["state"] == "failed"])
    if quiet:
        return int(any(rows[key]["state"] != "done" for key in keys))
    return max((tell or print_outcome)(settings, rows[key]) for key in keys)


def wait_for_files(settings: Settings, uids: Sequence[str]) -> None:
    """Wait until error.json is there of jobs that have just failed: it follows their rows."""
    if not uids:
        return
    places, end_s = Places(settings.folders.share, settings.folders.state), time.monotonic() + FILE_S
    with closing(client.open_ledger(settings)) as db:
        while not all(find_inputs(db, uid, places) for uid in uids) and time.monotonic() < end_s:
            time.sleep(POLL_S)


def find_key(settings: Settings, name: str) -> str:
    """Return what `follow_jobs` finds the job of a name by: its uid, or the name while its files are in the inbox.

    A job that is taken in just now has its row a moment later. Raises UserError where there is no such job.
    """
    end_s = time.monotonic() + CLAIM_S
    while True:
        if any(fold_name(path.stem) == fold_name(name) for path in settings.folders.inbox.glob("*")):
            return name
        db = client.open_ledger(settings)
        try:
            if (row := client.find_job(db, name)) is not None:
                return str(row["uid"])
            if time.monotonic() > end_s:
                require_job(db, name)
        finally:
            db.close()
        time.sleep(POLL_S)


def read_rows(settings: Settings, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of the jobs that the ledger has, by their keys."""
    try:
        db = client.open_ledger(settings)
    except NoLedger:
        return {}
    try:
        return {key: row for key in keys if (row := client.find_job(db, key)) is not None}
    finally:
        db.close()


def print_outcome(settings: Settings, row: dict[str, Any]) -> int:
    """Print how a job ended. Return exit code 0 if it is done, 1 if not."""
    if row["state"] == "done":
        video = find_video(settings.folders.outbox / row["result"])
        console.print(f"[green]{speak('done')}[/]: {escape_markup(video)}", soft_wrap=True)
        return 0
    code, message = row["error_code"], speak(row["error_message"] or "")
    told = row["name"] if code is None else f"{row['name']}: {code}: {message}"
    error_console.print(f"[red]{speak(row['state'])}[/]: {escape_markup(told)}", soft_wrap=True)
    if row["error_hint"]:
        error_console.print(escape_markup(speak(row["error_hint"])), soft_wrap=True)
    return 1
