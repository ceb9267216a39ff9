"""`musedrop demo`: the example jobs, dropped into a scratch inbox, with a daemon in this process."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from rich.console import Console

from agent.cli import client
from agent.cli import progress as live
from agent.daemon import Daemon
from agent.errors import UserError
from agent.fs import make_folders
from agent.jobs.spec import AUDIO_SUFFIXES, AVATAR_SUFFIXES
from agent.settings import Settings
from agent.settings_file import format_settings, load_settings

STEP_S = 0.2


def play(folder: Path, examples: Path, console: Console) -> int:
    """Drop every example, show progress, stop when all are finished. 0 if each has its video."""
    jobs = sorted(examples.glob("*.json"))
    if not jobs:
        raise UserError(f"there are no example jobs in {examples}: run this from the project's folder")
    settings = scratch(folder)
    logging.basicConfig(level=logging.WARNING, filename=settings.folders.logs / "daemon.log", force=True)
    daemon = Daemon(settings)
    names = drop(examples, settings.folders.inbox)
    console.print(f"{daemon.engine_line()}\nDropped {len(names)} jobs into {settings.folders.inbox}", markup=False)
    db = client.reader(settings)
    try:
        with live.Board(console) as board:
            while True:
                daemon.step(STEP_S)
                rows = list(reversed(client.rows(db, "SELECT * FROM job_status ORDER BY created_at DESC, name DESC")))
                board.show(rows[-len(names) :])
                if len(rows) >= len(names) and daemon.finished:
                    break
    finally:
        db.close()
        daemon.close()
    return tell(settings, console, len(names))


def scratch(folder: Path) -> Settings:
    """A fresh share in `folder`; what an earlier demo left there is removed, and nothing else."""
    config = folder / "musedrop.toml"
    if folder.exists() and not config.is_file() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something else: choose another folder for the demo")
    for name in ("inbox", "outbox", "failed", "archive", "state"):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(format_settings(".", "./state"), encoding="utf-8")
    settings = load_settings(config)
    make_folders((*settings.folders.of_share, *settings.folders.of_state))
    return settings


def drop(examples: Path, inbox: Path) -> list[str]:
    """Copy the examples as a person would; returns the names of the jobs they make."""
    files = [path for path in sorted(examples.iterdir()) if path.suffix != ".md"]
    for path in files:
        shutil.copyfile(path, inbox / path.name)
    faces = {path.stem for path in files if path.suffix in AVATAR_SUFFIXES}
    voices = {path.stem for path in files if path.suffix in AUDIO_SUFFIXES}
    return sorted((faces & voices) | {path.stem for path in files if path.suffix == ".json"})


def tell(settings: Settings, console: Console, expected: int) -> int:
    db = client.reader(settings)
    rows = client.overview(db, expected)
    db.close()
    console.print(live.table(rows))
    for row in rows:
        if row["state"] == "done":
            video = settings.folders.outbox / row["result"] / "result.mp4"
            console.print(f"video: {video}", soft_wrap=True, highlight=False, markup=False)
    done = sum(row["state"] == "done" for row in rows)
    console.print(
        f"{done} of {expected} jobs done; the ledger is {settings.folders.ledger}", soft_wrap=True, markup=False
    )
    return 0 if done == expected else 1
