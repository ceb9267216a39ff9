"""What systemd is told, and when."""

from __future__ import annotations

import socket
from math import inf
from pathlib import Path

import pytest

from agent.service.systemd import Notifier, Watchdog


def test_systemd_hears_each_status_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY, STATUS when it changes, STOPPING; without a socket nothing happens, and a dead one is given up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        notifier.send_ready()
        for text in ("1 running", "1 running", "2 running"):
            notifier.send_status(text)
        notifier.send_stopping()
        heard = [systemd.recv(100).decode() for _ in range(4)]
    assert heard == ["READY=1", "STATUS=1 running", "STATUS=2 running", "STOPPING=1"]
    notifier.send_alive()
    assert notifier.address == ""
    monkeypatch.delenv("NOTIFY_SOCKET")
    Notifier().send_ready()


def test_the_watchdog_is_fed_while_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in systemd's period, never while something is wrong, and only by the process that systemd means."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        watchdog = Watchdog(Notifier(), {"WATCHDOG_USEC": "30000000"})
        for now, problem in ((100.0, ""), (114.9, ""), (115.0, "ill"), (129.9, ""), (130.0, "")):
            watchdog.feed(now, problem)
        assert [systemd.recv(100), systemd.recv(100)] == [b"WATCHDOG=1"] * 2
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
    assert watchdog.due_s == 145.0
    assert Watchdog(Notifier(), {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).period_s == inf


def test_systemd_is_asked_for_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In microseconds from now; a reload is announced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        Notifier().extend_timeout(1.5)
        Notifier().send_reloading()
        assert [systemd.recv(100), systemd.recv(100)] == [b"EXTEND_TIMEOUT_USEC=1500000", b"RELOADING=1"]
