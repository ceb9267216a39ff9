"""`musedrop tray` as a process of a session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from tests.agent.desktop.conftest import bus
from tests.agent.desktop.test_tray import Desktop
from tests.agent.samples import add_job
from tests.share import ROOT, Share, until

__all__ = ["bus"]


def read_log(share: Share) -> str:
    return (share.root / "tray.log").read_text()


@pytest.fixture
def desktop(bus: str) -> Desktop:
    made = Desktop(bus)
    made.appear()
    return made


def test_the_tray_pauses_for_an_hour_and_outlives_what_goes_wrong(
    desktop: Desktop, share: Share, tmp_path: Path
) -> None:
    """The menu pauses the queue by a file; results come into the menu, though nobody shows notifications."""
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "states")}
    command = [sys.executable, "-m", "agent.cli.main", "tray", "--config", str(share.config)]
    with (share.root / "tray.log").open("wb") as log:
        tray = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=env)
    try:
        desktop.take_item()
        labels = desktop.read_labels()
        assert labels == ["Open the page", "Open the outbox", "-", "Pause", "Pause for an hour"]
        desktop.click(labels.index("Pause for an hour") + 1)
        until(lambda: bool((share.status_file() or {}).get("paused")), 60, share.log)
        assert json.loads((tmp_path / "states/musedrop/tray.json").read_text())["resume_at"] > 0
        until(lambda: "Resume" in desktop.read_labels(), 60, lambda: read_log(share))
        ledger = Ledger(share.state / "jobs.db")
        add_job(ledger, "u1", state=JobState.DONE, name="hello", at_ms=10**12)
        ledger.close()
        until(lambda: "hello" in desktop.read_labels(), 60, lambda: read_log(share))
        until(lambda: "no desktop shows notifications" in read_log(share), 60, lambda: read_log(share))
        share.kill()
        until(lambda: desktop.read_item()["Status"] == "NeedsAttention", 60, lambda: read_log(share))
        assert tray.poll() is None
    finally:
        desktop.bus.close()
        tray.kill()
        tray.wait(30)
