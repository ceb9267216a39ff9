"""Waiting for jobs whose rows come later."""

from __future__ import annotations

from agent.cli.jobs.following import read_rows
from agent.ledger.ledger import Ledger
from agent.settings import Settings
from tests.agent.samples import add_job


def test_a_ledger_that_is_being_laid_out_has_no_rows_yet(settings: Settings) -> None:
    """A wait that begins beside a daemon which begins goes on, while the ledger is missing or empty."""
    assert read_rows(settings, ["u1"]) == {}
    settings.folders.ledger.touch()
    assert read_rows(settings, ["u1"]) == {}
    settings.folders.ledger.unlink()
    ledger = Ledger(settings.folders.ledger)
    add_job(ledger, "u1")
    assert read_rows(settings, ["u1"])["u1"]["state"] == "queued"
    ledger.close()
