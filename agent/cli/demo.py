"""`musedrop demo`: run the example jobs in a scratch share, with the daemon in this process."""

from __future__ import annotations

import logging
import shutil
import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console

from agent import client
from agent.cli.console import speak
from agent.cli.display import progress, views
from agent.daemon import Daemon
from agent.errors import UserError
from agent.fs import atomic_copy, atomic_write_bytes
from agent.jobs.spec import AUDIO_SUFFIXES, AVATAR_SUFFIXES
from agent.results.video_file import find_video
from agent.service.share_folders import lay_out
from agent.settings import Settings
from agent.settings_file import format_settings, load_settings

STEP_S = 0.2


def run_demo(folder: Path, examples: Path, console: Console) -> int:
    """Drop the examples and show progress until all are finished. Return 0 if all are done."""
    jobs = sorted(examples.glob("*.json"))
    if not jobs:
        raise UserError(f"there are no example jobs in {examples}: run this from the project's folder")
    settings = make_scratch_share(folder)
    told = speak(f"Rendering the jobs of {examples} into {settings.folders.outbox}: it takes up to a minute.")
    console.print(told, soft_wrap=True, markup=False)
    logging.basicConfig(level=logging.WARNING, filename=settings.folders.logs / "daemon.log", force=True)
    daemon = Daemon(settings, signs=True)
    names = drop_examples(examples, settings.folders.inbox)
    db = client.open_ledger(settings)
    try:
        with progress.JobProgress(console) as board:
            while True:
                daemon.step(STEP_S)
                rows = list(reversed(client.query(db, "SELECT * FROM job_status ORDER BY created_at DESC, name DESC")))
                board.show(rows[-len(names) :])
                if len(rows) >= len(names) and daemon.has_finished:
                    break
    finally:
        db.close()
        daemon.close()
    return print_results(settings, console, len(names))


def make_scratch_share(folder: Path) -> Settings:
    """Create a fresh share in `folder`; only the files of an earlier demo are removed."""
    config = folder / "musedrop.toml"
    if folder.exists() and not config.is_file() and any(folder.iterdir()):
        raise UserError(f"{folder} holds other files: choose another folder for the demo")
    for name in ("share", "state", "inbox", "outbox", "failed", "archive"):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(config, format_settings("./share", "./state").encode())
    settings = load_settings(config)
    lay_out(settings.folders)
    return settings


def drop_examples(examples: Path, inbox: Path) -> list[str]:
    """Copy the examples into the inbox. Return the names of the jobs that they make."""
    files = [path for path in sorted(examples.iterdir()) if path.suffix != ".md"]
    for path in files:
        atomic_copy(path, inbox / path.name)
    faces = {path.stem for path in files if path.suffix in AVATAR_SUFFIXES}
    voices = {path.stem for path in files if path.suffix in AUDIO_SUFFIXES}
    return sorted((faces & voices) | {path.stem for path in files if path.suffix == ".json"})


def print_results(settings: Settings, console: Console, expected: int) -> int:
    db = client.open_ledger(settings)
    rows = client.list_jobs(db, expected)
    db.close()
    console.print(views.build_job_table(rows, datetime.now().astimezone()))
    for row in rows:
        if row["state"] == "done":
            video = find_video(settings.folders.outbox / row["result"])
            console.print(speak(f"video: {video}"), soft_wrap=True, highlight=False, markup=False)
    done = sum(row["state"] == "done" for row in rows)
    told = speak(f"{done} of {expected} jobs done; the ledger is {settings.folders.ledger}")
    console.print(told, soft_wrap=True, markup=False)
    console.print(
        speak("Now make a video of your own in a browser. Start the page, and open the address that it says:")
    )
    told = f"  {Path(sys.argv[0])} run --page -c {settings.share.parent / 'musedrop.toml'}"
    console.print(told, soft_wrap=True, markup=False, highlight=False)
    return 0 if done == expected else 1
