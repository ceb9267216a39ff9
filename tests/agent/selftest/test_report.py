"""selftest.json: written whole, read with care, kept device by device."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.selftest.report import build_report, find_key, read_reports, write_reports
from agent.selftest.rows import Row
from agent.settings import Settings
from tests.agent.selftest.figures import CARD, CPU

WRONG = Row("networks fp16", "bad", "wrong numbers", "update its driver", {"unet": {"error": 0.3}}, blames_card=True)


def test_a_report_is_read_as_it_was_written(settings: Settings, tmp_path: Path) -> None:
    """With the fault of the card as a sentence; another device keeps its own report."""
    path, key = tmp_path / "state" / "selftest.json", find_key(settings, CARD)
    report = build_report(CARD, key, [Row("device", "ok", "Card"), WRONG], 1000, 12.34)
    write_reports(path, [report])
    other = build_report(CPU, find_key(settings, CPU), [Row("copies", "note", "slow")], 2000, 1.0)
    write_reports(path, [other])
    assert read_reports(path) == {CARD.id: report, "cpu": other}
    assert (report.verdict, report.fault) == ("bad", "networks fp16: wrong numbers; update its driver")
    assert report.summary == "bad: 2 checks in 12 s, networks fp16: wrong numbers"
    assert (other.verdict, other.fault) == ("note", "")


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"version": 2, "devices": []}', '{"devices": [{"device": 1}]}'])
def test_a_file_that_is_no_report_counts_as_none(tmp_path: Path, text: str | None) -> None:
    """So the devices are tested again, and the file is written anew."""
    path = tmp_path / "selftest.json"
    if text is not None:
        path.write_text(text)
    assert read_reports(path) == {}


def test_the_key_is_another_when_weights_are_replaced(settings: Settings, touch_weights: Callable[[], None]) -> None:
    """It names card, driver and torch, and the files of the weights, which aren't read for it."""
    without = find_key(settings, CARD)
    assert (without.card, without.driver, without.weights) == (CARD.id, "580.1", "")
    touch_weights()
    first = find_key(settings, CARD)
    assert first.weights
    assert find_key(settings, CARD) == first
    os.utime(next(path for path in settings.models_dir.rglob("*") if path.is_file()), (1, 1))
    assert find_key(settings, CARD).weights not in ("", first.weights)
