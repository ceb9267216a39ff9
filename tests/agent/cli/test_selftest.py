"""What `musedrop selftest` prints."""

from __future__ import annotations

import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from agent.cli.main import app
from agent.cli.selftest import build_table, build_tuning_table, list_findings, tune
from agent.scheduler.tuning import Tuning
from agent.selftest.report import ReportKey, build_report
from agent.selftest.rows import Row
from agent.selftest.workers import Target
from agent.settings import Settings
from gpu_pool.cards import Cards
from gpu_pool.types import Device
from tests.agent.scheduler.tunings import make_tuning
from tests.agent.selftest.figures import CARD

KEY = ReportKey(card=CARD.id, driver="580.1", torch="2.9", weights="")
ROWS = [Row("device", "ok", "Card [x]"), Row("copies", "bad", "slow\x1b[2J", "a full slot")]


def test_a_table_of_a_device() -> None:
    """Each row with its verdict and its advice; nothing that a driver says moves the terminal's cursor."""
    console = Console(width=100, record=True, file=None)
    with console.capture() as capture:
        console.print(build_table(build_report(CARD, KEY, ROWS, 0, 61.0)))
    text = capture.get()
    assert all(part in text for part in (CARD.id, "61 s", "Card [x]", "bad", "-> a full slot"))
    assert "\x1b[2J" not in text


def test_doctor_shows_the_same_rows() -> None:
    """With the beginning of the card's name."""
    findings = list_findings(build_report(CARD, KEY, ROWS, 0, 61.0))
    assert [(finding.verdict, finding.what) for finding in findings] == [
        ("ok", "GPU-aaaa1111 device"),
        ("bad", "GPU-aaaa1111 copies"),
    ]


def test_one_card_is_tuned_as_one_of_all(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cores must keep up with every card that jobs use, also where only one is measured."""
    devices = tuple(Device(f"GPU-{number}", "cuda", name="Card") for number in range(3))
    monkeypatch.setattr("agent.cli.selftest.read_cards", lambda *_args, **_how: Cards(devices))
    told: list[tuple[list[str], int]] = []

    def measure(_settings: Settings, targets: list[Target], _tell: object, cards: int) -> list[Tuning]:
        told.append(([target.id for target in targets], cards))
        return []

    monkeypatch.setattr("agent.cli.selftest.tune_devices", measure)
    tune(settings, "GPU-1", None)
    assert told == [(["GPU-1"], 3)]


def test_a_table_of_a_tuning(settings: Settings) -> None:
    """What was measured, with a mark at each choice."""
    figures = {
        "networks": "installed",
        "batches": {"4": 80.0, "8": 100.0},
        "compiled": {"state": "ready", "fps": 120.0},
        "paces": [{"workers": n, "encoder": "h264_nvenc", "fps": 90.0 + n, "cpu_s": 0.001} for n in (1, 2)],
    }
    console = Console(width=100, file=None)
    with console.capture() as capture:
        console.print(build_tuning_table(make_tuning(settings, figures=figures)))
    marked = [line.split("│")[1].strip() for line in capture.get().splitlines() if " x " in line]
    assert marked == ["batches of 8", "compiled, batches of 8", "workers 2, h264_nvenc, 720p"]


def test_tune_measures_what_is_asked_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--device cpu` without a card; the figures are JSON if that is asked for."""
    asked: list[str] = []

    def measure(_settings: Settings, targets: list[Target], _tell: object, _cards: int) -> list[Tuning]:
        asked.extend(target.id for target in targets)
        return [make_tuning(settings, "cpu", "cpu")]

    monkeypatch.setattr("agent.cli.selftest.tune_devices", measure)
    file = settings.folders.state.parent / "musedrop.toml"
    done = CliRunner().invoke(app, ["tune", "--config", str(file), "--device", "cpu", "--json"])
    assert (done.exit_code, asked, json.loads(done.stdout)[0]["choice"]["batch_size"]) == (0, ["cpu"], 8)
