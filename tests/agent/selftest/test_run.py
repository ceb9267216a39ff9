"""Which devices are tested, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import UserError
from agent.selftest import run
from agent.selftest.report import read_reports
from agent.selftest.rows import Row
from agent.selftest.run import CPU, choose_targets, run_selftest
from agent.settings import Settings
from gpu_pool.cards import Cards
from gpu_pool.types import Device
from models import catalog

A, B = Device("GPU-aaaa-1", "cuda", name="Card"), Device("GPU-bbbb-2", "cuda", name="Card")
CARDS = Cards((A, B), driver="580.1")


def choose(settings: Settings, cards: Cards, asked: str | None = None) -> list[str]:
    return [target.id for target in choose_targets(settings, cards, asked)]


def test_all_cards_or_the_processor(settings: Settings) -> None:
    """Cards that are lost or excluded aren't tested; the driver's version belongs to the result."""
    assert choose(settings, CARDS) == [A.id, B.id]
    assert choose(settings, replace(CARDS, devices=(A, replace(B, state="lost")))) == [A.id]
    without = settings.devices.model_copy(update={"exclude": ("GPU-aaaa",)})
    assert choose(settings.model_copy(update={"devices": without}), CARDS) == [B.id]
    assert choose(settings, Cards()) == ["cpu"]
    assert [target.driver for target in choose_targets(settings, CARDS, None)] == ["580.1"] * 2


def test_one_device_by_name(settings: Settings) -> None:
    """By the beginning of a UUID, or a worker of the card; "cpu" is always there."""
    for asked in ("GPU-bbbb", "gpu-bbbb-2", f"{B.id}/2"):
        assert choose(settings, CARDS, asked) == [B.id]
    assert choose(settings, CARDS, "cpu") == choose(settings, CARDS, "cpu:0") == ["cpu"]
    for asked, told in (("GPU-", "several devices are"), ("GPU-cc", "no device is"), ("", "several")):
        with pytest.raises(UserError, match=told):
            choose(settings, CARDS, asked)


def test_a_driver_in_trouble_is_no_machine_without_cards(settings: Settings) -> None:
    """The processor isn't tested instead, unless it is asked for."""
    cards = Cards(trouble="Reboot: the driver's library was upgraded.")
    with pytest.raises(UserError, match="Reboot"):
        choose(settings, cards)
    assert choose(settings, cards, "cpu") == ["cpu"]


def test_a_report_is_written_after_each_device(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is ended in the middle keeps those that are whole."""
    rows = iter([[Row("device", "ok", "fine")], None])

    def examine(*_: object) -> list[Row]:
        if (found := next(rows)) is None:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(run, "examine_target", examine)
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_selftest(settings, choose_targets(settings, CARDS, None), lambda target, _row: told.append(target.id))
    assert (told, list(read_reports(settings.folders.selftest_file))) == ([A.id], [A.id])


def test_without_packages_there_is_nothing_to_test(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note says what to install, and no worker is started."""
    monkeypatch.setattr(catalog, "find_missing_packages", lambda _engine: ["torch"])
    [row] = run.examine_target(settings, CPU)
    assert (row.verdict, "pip install" in row.advice) == ("note", True)
