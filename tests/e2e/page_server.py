"""`musedrop page` of a share, and many results for it to show."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from gpu_pool.types import Device
from tests.agent.samples import add_job
from tests.share import ROOT, Share, until


class PageServer:
    """`musedrop page` of a share, in a process of its own."""

    def __init__(self, share: Share) -> None:
        self.share = share
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://localhost:{self.port}/"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "agent.cli.main", "page", "--listen", f"127.0.0.1:{self.port}"]
        with (self.share.root / "page.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--config", str(self.share.config)], cwd=ROOT, stdout=log, stderr=log
            )
        until(self.is_up, 60, self.log)

    def is_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def log(self) -> str:
        return (self.share.root / "page.log").read_text()


def add_hostile_rows(share: Share, name: str) -> None:
    """Add jobs of that name and submitter in each place of the page."""
    ledger = Ledger(share.state / "jobs.db")
    for state in (JobState.DONE, JobState.FAILED, JobState.QUEUED, JobState.RUNNING):
        add_job(ledger, f"hostile-{state}", state=state, name=f"{name}\u202e\n{state}", submitter=name, at_ms=1)
    add_job(ledger, "other", state=JobState.DONE, name="other", submitter="other", at_ms=1)
    ledger.close()


def add_results(share: Share, count: int) -> None:
    """Fill the ledger of a share, whose daemon doesn't run, with done jobs a second apart."""
    ledger = Ledger(share.state / "jobs.db")
    with ledger.together():
        for number in range(count):
            add_job(ledger, f"u{number}", state=JobState.DONE, at_ms=number * 1000, name=f"clip {number}")
    card = Device("GPU-1", "cuda", "Card", card="GPU-1", state="busy", temperature_c=61, load_percent=97, power_w=300)
    for device in (card, Device("GPU-2", "cuda", "Card", card="GPU-2", state="idle", power_w=0)):
        ledger.devices.record(device, at_ms=1)
    ledger.close()
