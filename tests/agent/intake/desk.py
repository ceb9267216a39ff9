"""An intake over a share of its own, on a clock that the test sets: real files, a real ledger, no daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from agent.fs.folders import make_folders
from agent.intake.admission import Intake
from agent.intake.controls.commands import Command
from agent.ledger.job import Job
from agent.ledger.ledger import Ledger
from agent.settings import CurrentSettings, Settings
from agent.settings_file import load_settings
from tests.agent.samples import a_ledger

START_MS = 1_700_000_000_000
SETTINGS = """
share = "share"
state = "state"

[inbox]
settle_s = 1
share_settle_s = 7
piece_settle_s = 1
patience_s = 2
scan_s = 5
wait_media_s = 60
watch = "poll"
"""


def a_settings(tmp_path: Path, text: str = SETTINGS) -> Settings:
    path = tmp_path / "musedrop.toml"
    path.write_text(text)
    settings = load_settings(path)
    make_folders((*settings.folders.of_share, *settings.folders.of_state))
    return settings


class Desk:
    """`turn` does what the daemon does in a turn, at `now_s` seconds."""

    def __init__(self, tmp_path: Path) -> None:
        self.settings = a_settings(tmp_path)
        self.folders = self.settings.folders
        self.ledger: Ledger = a_ledger(tmp_path)
        self.wakes = 0
        self.now_s = 0.0
        self.open()

    def open(self) -> None:
        """Make the intake anew, as a daemon that starts."""
        self.intake = Intake(CurrentSettings(self.settings), self.ledger, self._wake)
        self.intake.meet_share()

    def _wake(self) -> None:
        self.wakes += 1

    @property
    def at_ms(self) -> int:
        return START_MS + round(1000 * self.now_s)

    def put(self, name: str, data: bytes = b"media", *, settled: bool = True) -> Path:
        """Write a file into the inbox; `settled`: as a program that renames it into place."""
        path = self.folders.inbox / name
        path.write_bytes(data)
        if settled:
            self.intake.inbox.renamed.add(name)
        return path

    def drop(self, name: str, **keys: Any) -> None:
        """Put a job file into the inbox."""
        self.put(f"{name}.json", json.dumps({"avatar": "face.jpg", "audio": "voice.wav", **keys}).encode())

    def drop_media(self) -> None:
        self.put("face.jpg")
        self.put("voice.wav")

    def add_avatar(self, name: str) -> None:
        """Put an avatar into the library that has been there for a while."""
        path = self.folders.avatars / name
        path.write_bytes(b"avatar")
        os.utime(path, (1_600_000_000, 1_600_000_000))

    def turn(self, wait_s: float = 0.0) -> list[Command]:
        self.now_s += wait_s
        assert self.intake.scan(self.now_s)
        commands = list(self.intake.run_controls(self.at_ms))
        self.intake.check_waiting_jobs(self.at_ms)
        self.intake.claim_new(self.at_ms)
        return commands

    def job(self, name: str) -> Job:
        job = self.ledger.find(name)
        assert job is not None, self.names()
        return job

    def names(self) -> list[str]:
        return [row["name"] for row in self.ledger.rows("SELECT name FROM job_status ORDER BY created_at, name")]

    def inbox_names(self) -> list[str]:
        return sorted(path.name for path in self.folders.inbox.iterdir())

    def claimed_names(self, job: Job) -> list[str]:
        return sorted(path.name for path in (self.folders.claimed / job.uid).iterdir())
