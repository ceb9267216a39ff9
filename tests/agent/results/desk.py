"""A publisher and an archiver over one share, and jobs whose verified videos are staged there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.fs.folders import make_folders
from agent.ledger.job import Job
from agent.ledger.ledger import Ledger
from agent.results.archive import Archiver
from agent.results.publisher import Publisher
from agent.scheduler.attempt import Attempt, FinishedAttempt
from agent.service.problems import Problems
from agent.settings import CurrentSettings
from agent.settings_file import load_settings
from models.types import Inspection
from tests.agent.fake_clock import FakeClock
from tests.agent.samples import a_request, add_job, read_job, start_job

MEDIUM = {"path": "x", "inode": 1, "size": 1, "mtime_ns": 1}
SETTINGS = 'share = "share"\nstate = "state"\n[inbox]\nkeep_media_s = 10\n'


class Desk:
    """Time starts at the beginning of 1970."""

    def __init__(self, root: Path) -> None:
        (root / "share").mkdir()
        (root / "musedrop.toml").write_text(SETTINGS)
        settings = load_settings(root / "musedrop.toml")
        self.folders = settings.folders
        make_folders((*self.folders.of_share, *self.folders.of_state))
        self.ledger, self.problems, self.clock = Ledger(self.folders.ledger), Problems(), FakeClock(0)
        self.publisher = Publisher(self.folders, self.ledger, self.problems, self.clock)
        self.archiver = Archiver(CurrentSettings(settings), self.ledger, self.problems, self.clock)

    def start(self, uid: str = "u1", **keys: Any) -> Attempt:
        """A running job whose verified video is in the staging folder."""
        media = {role: {"given": role, **MEDIUM} for role in ("avatar", "audio")}
        job = start_job(self.ledger, add_job(self.ledger, uid, name="hello", media=media, **keys), "token", at_ms=1)
        request = a_request(self.folders.state, work=f"work/{uid}", out=str(self.folders.staging / f"{uid}-token"))
        units = {"inspect": 1, "prepare": 1, "render": 25, "assemble": 1}
        attempt = Attempt(job, "token", request, "cpu", Inspection(25, "25", 64, 64, 1.0, units), stage="assemble")
        attempt.inspection_is_new = True
        self.stage(uid)
        claimed = self.folders.claimed / uid
        claimed.mkdir()
        (claimed / "hello.json").write_text("{}")
        return attempt

    def stage(self, uid: str) -> None:
        staging = self.folders.staging / f"{uid}-token"
        staging.mkdir()
        for name in ("result.mp4", "preview.jpg"):
            (staging / name).write_bytes(b"x")

    def add(self, uid: str = "u1", *, delay_s: float = 0.0) -> Job:
        """A job whose result the publisher has taken over."""
        self.publisher.add(FinishedAttempt(self.start(uid), {"label": True}), delay_s=delay_s)
        return self.job(uid)

    def finish(self, uid: str = "u1", name: str = "hello") -> Job:
        """A job that is done, whatever became of its result."""
        return self.ledger.transitions.finish(self.job(uid), name, at_ms=self.clock.at_ms())

    def restart(self) -> None:
        """Lose what only the process knows, and settle what the ledger knows."""
        self.publisher = Publisher(self.folders, self.ledger, self.problems, self.clock)
        self.publisher.recover()

    def job(self, uid: str = "u1") -> Job:
        return read_job(self.ledger, uid)

    def results(self) -> list[str]:
        return sorted(path.name for path in self.folders.outbox.iterdir())

    def staged(self) -> list[str]:
        return sorted(path.name for path in self.folders.staging.iterdir())
