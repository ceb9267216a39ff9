"""The program that the daemon starts for a self-test."""

from __future__ import annotations

import pytest

from agent.selftest import program
from agent.selftest.program import read_settings, run_in_background
from agent.selftest.rows import Row
from agent.selftest.run import Tell
from agent.selftest.workers import Target
from agent.settings import Settings
from gpu_pool.cards import Cards
from gpu_pool.types import Device


def test_settings_arrive_as_they_were_sent(settings: Settings) -> None:
    """Every key, paths and lists too."""
    devices = settings.devices.model_copy(update={"exclude": ("GPU-aaaa",)})
    inbox = settings.inbox.model_copy(update={"path_map": {"Z:": settings.share}, "media_roots": (settings.share,)})
    sent = settings.model_copy(update={"devices": devices, "inbox": inbox})
    assert read_settings(sent.model_dump_json()) == sent


def test_each_card_is_tested(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows go to the log; a card that has gone is an error that the daemon sees by the exit code."""
    tested: list[str] = []

    def run(_settings: Settings, targets: list[Target], tell: Tell) -> None:
        for target in targets:
            tested.append(target.id)
            tell(target, Row("device", "ok", "fine"))

    cards = Cards((Device("GPU-aaaa1", "cuda"), Device("GPU-bbbb2", "cuda")), driver="1")
    monkeypatch.setattr(program, "read_cards", lambda *_, **_more: cards)
    monkeypatch.setattr(program, "run_selftest", run)
    assert run_in_background(settings, ["GPU-aaaa1", "GPU-bbbb2"]) == 0
    assert tested == ["GPU-aaaa1", "GPU-bbbb2"]
    assert "GPU-bbbb2: ok, device: fine" in capsys.readouterr().out
    assert run_in_background(settings, ["GPU-cccc3"]) == 1
    assert "no device is called" in capsys.readouterr().out
