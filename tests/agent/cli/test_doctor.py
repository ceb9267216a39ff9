"""What `musedrop doctor` finds, check by check; tests/e2e/test_cli.py runs the command."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from agent.cli import doctor
from agent.cli.doctor import (
    check_card,
    check_cards,
    check_daemon_status,
    check_engine,
    check_engines,
    check_folders,
    check_motion_engine,
    check_speech,
    check_walls,
    has_had_cards,
)
from agent.ledger.ledger import Ledger
from agent.settings import Settings
from gpu_pool.cards import Cards
from gpu_pool.types import Device
from gpu_pool.walls.landlock import NOTHING
from models.catalog import ENGINES, find_missing_packages
from models.motion.catalog import MOTION_ENGINES

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


def test_a_driver_in_trouble_is_bad(settings: Settings) -> None:
    """With what to do; the jobs of `auto` wait for it where MuseTalk would run them, and nowhere else."""
    found = Cards(problems=("No NVIDIA driver answers: x.",), trouble="reboot: the driver's library was upgraded")
    findings = [(finding.verdict, finding.what) for finding in check_cards(found, settings)]
    assert findings == [("bad", "NVIDIA driver"), ("note", "NVML")]
    *_, auto = check_engines(settings, found)
    assert (auto.verdict, "preview" in auto.found) == ("ok", True)
    for file in ENGINES["musetalk"].weights:
        (settings.models_dir / file).parent.mkdir(parents=True, exist_ok=True)
        (settings.models_dir / file).touch()
    *_, auto = check_engines(settings, found)
    expected = ("ok", False) if find_missing_packages(ENGINES["musetalk"]) else ("bad", True)
    assert (auto.verdict, "reboot" in auto.found) == expected
    none = settings.devices.model_copy(update={"exclude": ("GPU-", "MIG-")})
    *_, auto = check_engines(settings.model_copy(update={"devices": none}), found)
    assert (auto.verdict, "there is no GPU" in auto.found) == ("ok", expected[1])


def test_the_ledger_tells_doctor_of_a_card(settings: Settings) -> None:
    """A card that the last start of the daemon had, unless the settings exclude it."""
    assert not has_had_cards(settings)
    settings.folders.ledger.parent.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(settings.folders.ledger)
    ledger.devices.record(replace(CARD, card="GPU-1"), at_ms=1)
    ledger.close()
    assert has_had_cards(settings)
    none = settings.devices.model_copy(update={"exclude": ("GPU-1",)})
    assert not has_had_cards(settings.model_copy(update={"devices": none}))


def test_a_card_that_shares_the_memory_of_the_machine_says_so() -> None:
    """It has no figures of its own, which isn't 0 GiB."""
    shared = check_card(replace(CARD, free_bytes=0, total_bytes=0), admitted=True)
    assert (shared.verdict, shared.found) == ("ok", "Card GPU-1: shares the memory of this machine")


def test_an_engine_without_weights_names_the_command(settings: Settings) -> None:
    """The preview engine needs nothing; MuseTalk without weights is a note with the command to run."""
    assert check_engine(ENGINES["preview"], settings).verdict == "ok"
    lacking = check_engine(ENGINES["musetalk"], settings)
    assert (lacking.verdict, lacking.advice) == ("note", "run `musedrop models fetch`")


def test_an_engine_of_clips_without_weights_names_what_is_missing(settings: Settings) -> None:
    """MuseV without weights is a note with the first missing file, and with the command that says its licence."""
    lacking = check_motion_engine(MOTION_ENGINES["musev"], settings)
    assert lacking.verdict == "note"
    assert "motion/musev_referencenet/unet/config.json" in lacking.found
    assert lacking.advice == "run `musedrop models fetch --engine musev --accept-licence`"


def test_walls(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this kernel lacks is named, and that they are off."""
    monkeypatch.setattr(doctor, "explain_kernel", list)
    assert [finding.verdict for finding in check_walls(settings)] == ["ok"]
    monkeypatch.setattr(doctor, "explain_kernel", lambda: [NOTHING])
    assert [(finding.verdict, finding.found) for finding in check_walls(settings)] == [("note", NOTHING)]
    off = settings.model_copy(update={"pool": settings.pool.model_copy(update={"walls": False})})
    [finding] = check_walls(off)
    assert "all rights of the daemon" in finding.found


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


def test_the_speech_program_is_looked_for(settings: Settings) -> None:
    """Nothing is said where none is set; one that is missing is a fault."""
    assert list(check_speech(settings)) == []
    verdicts = {}
    for command in ("sh", "no-such-speaker"):
        speech = settings.speech.model_copy(update={"command": (command,)})
        [finding] = check_speech(settings.model_copy(update={"speech": speech}))
        verdicts[command] = finding.verdict
    assert verdicts == {"sh": "ok", "no-such-speaker": "bad"}
