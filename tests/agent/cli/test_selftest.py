"""What `musedrop selftest` prints."""

from __future__ import annotations

from rich.console import Console

from agent.cli.selftest import build_table, list_findings
from agent.selftest.report import ReportKey, build_report
from agent.selftest.rows import Row
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
