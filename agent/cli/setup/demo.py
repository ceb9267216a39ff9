"""The demo clip of a new set-up: an ordinary job, done by the daemon that runs, or by one in this process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import client
from agent.cli.display.progress import JobProgress
from agent.cli.jobs.following import follow_jobs, read_rows
from agent.cli.presence import find_presence
from agent.daemon import Daemon
from agent.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from agent.settings import Settings

NAME = "hello"
STEP_S = 0.2


def make_demo(settings: Settings, source: Path, example: tuple[Path, Path], console: Console) -> dict[str, Any]:
    """Submit the clip and wait for its end. Return its row. Raises UserError where it does not end."""
    face, voice = example
    is_served = find_presence(settings).is_alive
    daemon = None if is_served else open_daemon(settings)
    try:
        ticket = client.submit(settings, str(face), voice, {"engine": "auto"}, NAME)
        if daemon is None:
            follow_jobs(settings, source, [ticket.id], tell=lambda *_: 0)
        else:
            run_until_ended(daemon, settings, ticket.id, console)
    finally:
        if daemon is not None:
            daemon.close()
    row = read_rows(settings, [ticket.id]).get(ticket.id)
    if row is None or not row["finished_at"]:
        raise UserError(f"{ticket.name} has not ended: `musedrop status {ticket.name}` says why")
    return row


def open_daemon(settings: Settings) -> Daemon:
    """Return a daemon in this process, which logs into a file."""
    settings.folders.logs.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.WARNING, filename=settings.folders.logs / "daemon.log", force=True)
    return Daemon(settings)


def run_until_ended(daemon: Daemon, settings: Settings, key: str, console: Console) -> None:
    """Take turns of the daemon until the job has ended and its files have followed."""
    with JobProgress(console) as board:
        while True:
            daemon.step(STEP_S)
            rows = list(read_rows(settings, [key]).values())
            board.show(rows)
            if rows and rows[0]["finished_at"] and not daemon.ledger.list_unarchived(1):
                return
