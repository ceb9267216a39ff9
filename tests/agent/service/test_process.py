"""The daemon's manners: one of it, signals that only count, and what systemd hears."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest

from agent.service.process import AlreadyRunning, Drain, InstanceLock, Signals, read_daemon_pid
from agent.service.systemd import Notifier, Watchdog
from tests.share import ROOT

HOLDER = (
    "import sys; from pathlib import Path; from agent.service.process import InstanceLock\n"
    "lock = InstanceLock(Path(sys.argv[1])); print('held', flush=True); input()"
)


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    """Held by another process it is refused by name; after kill -9 of that one it is free."""
    path = tmp_path / "daemon.lock"
    assert read_daemon_pid(path) is None
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert read_daemon_pid(path) == holder.pid
        with pytest.raises(AlreadyRunning, match=str(holder.pid)):
            InstanceLock(path)
        holder.kill()
    lock = InstanceLock(path)
    assert read_daemon_pid(path) == os.getpid()
    lock.release()


def test_signals_are_counted_and_wake() -> None:
    """SIGTERM and SIGINT only count; afterwards the old handlers are back."""
    before = signal.getsignal(signal.SIGTERM)
    woken: list[int] = []
    signals = Signals(lambda: woken.append(1))
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert (signals.stop_requests, len(woken)) == (2, 2)
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) == before


def test_sighup_is_no_end() -> None:
    """It asks once for the settings to be read again, and for nothing else."""
    signals = Signals(lambda: None)
    os.kill(os.getpid(), signal.SIGHUP)
    asked = [signals.take_reload(), signals.take_reload()]
    signals.restore()
    assert (asked, signals.stop_requests) == ([True, False], 0)


def test_the_watchdog_is_fed_while_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in systemd's period, never while something is wrong, and only by the process that systemd means."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        watchdog = Watchdog(Notifier(), {"WATCHDOG_USEC": "30000000"})
        for now, illness in ((100.0, ""), (114.9, ""), (115.0, "ill"), (129.9, ""), (130.0, "")):
            watchdog.feed(now, illness)
        assert [systemd.recv(100), systemd.recv(100)] == [b"WATCHDOG=1"] * 2
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
    assert watchdog.due_s == 145.0
    assert Watchdog(Notifier(), {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).period_s == inf


def test_a_drain_goes_on_while_units_advance() -> None:
    """The first look is news, a change is, standing still isn't; the limit is the limit."""
    drain = Drain(now_s=100.0, limit_s=60.0)
    assert [drain.note_progress(done) for done in (0, 0, 3, 3, 1)] == [True, False, True, False, True]
    assert [drain.is_over(now) for now in (100.0, 159.9, 160.0)] == [False, False, True]


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
