"""What `musedrop doctor` finds, check by check; tests/e2e/test_cli.py runs the command."""

from __future__ import annotations

import json
import os
from dataclasses import replace

from agent.cli.doctor import check_card, check_cards, check_daemon_status, check_engine, check_folders
from agent.settings import Settings
from gpu_pool.cards import Cards
from gpu_pool.types import Device
from models.catalog import ENGINES

CARD = Device("GPU-1", "cuda", name="Card", free_bytes=1 << 30, total_bytes=4 << 30)


def test_a_card() -> None:
    """A usable card is ok, one that the settings exclude is a note, and a lost one is bad."""
    assert check_card(CARD, admitted=True).verdict == "ok"
    assert "not used" in check_card(CARD, admitted=False).found
    lost = check_card(replace(CARD, state="lost", reason="Xid 79"), admitted=True)
    assert (lost.verdict, "Xid 79" in lost.found) == ("bad", True)


def test_all_cards(settings: Settings) -> None:
    """Cards that are used, excluded and lost; with the driver and its problems."""
    devices = settings.devices.model_copy(update={"exclude": ("GPU-2",)})
    found = Cards(
        (CARD, replace(CARD, id="GPU-2"), replace(CARD, id="GPU-3", state="lost", reason="GPU is lost.")),
        ("Card 3 does not answer: GPU is lost.",),
        "999.01",
    )
    findings = list(check_cards(found, settings.model_copy(update={"devices": devices})))
    assert [(finding.verdict, finding.what, finding.found) for finding in findings] == [
        ("ok", "NVIDIA driver", "999.01"),
        ("note", "NVML", "Card 3 does not answer: GPU is lost."),
        ("ok", "GPU", "Card GPU-1: 1.0 of 4.0 GiB free"),
        ("note", "GPU", "Card GPU-2: 1.0 of 4.0 GiB free, not used"),
        ("bad", "GPU", "Card GPU-3: GPU is lost."),
    ]


def test_an_engine_without_weights_names_the_command(settings: Settings) -> None:
    """The preview engine needs nothing; MuseTalk without weights is a note with the command to run."""
    assert check_engine(ENGINES["preview"], settings).verdict == "ok"
    lacking = check_engine(ENGINES["musetalk"], settings)
    assert (lacking.verdict, lacking.advice) == ("note", "run `musedrop models fetch`")


def test_folders(settings: Settings) -> None:
    """A missing inbox is bad, with what to do; the others are ok, or nearly full."""
    settings.folders.inbox.rmdir()
    verdicts = {finding.what: finding for finding in check_folders(settings)}
    assert (verdicts["inbox"].verdict, "musedrop init" in verdicts["inbox"].advice) == ("bad", True)
    assert verdicts["outbox"].verdict != "bad"


def test_a_status_file_of_another_process_is_ignored(settings: Settings) -> None:
    """Users can write status.json: without a daemon that runs as the process in it, it reports nothing."""
    status = {"daemon": {"pid": os.getpid()}, "problems": ["invented"], "paused": True}
    settings.folders.status_file.write_text(json.dumps(status))
    assert list(check_daemon_status(settings)) == []
