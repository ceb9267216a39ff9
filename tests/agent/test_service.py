"""The daemon's manners: one of it, signals that only count, and what systemd hears."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.service import AlreadyRunning, Lock, Notifier, Signals, daemon_pid
from tests.share import ROOT

HOLDER = (
    "import sys; from pathlib import Path; from agent.service import Lock\n"
    "lock = Lock(Path(sys.argv[1])); print('held', flush=True); input()"
)


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    """Held by another process it is refused by name; after kill -9 of that one it is free."""
    path = tmp_path / "daemon.lock"
    assert daemon_pid(path) is None
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert daemon_pid(path) == holder.pid
        with pytest.raises(AlreadyRunning, match=str(holder.pid)):
            Lock(path)
        holder.kill()
    lock = Lock(path)
    assert daemon_pid(path) == os.getpid()
    lock.release()


def test_signals_are_counted_and_wake() -> None:
    """SIGTERM and SIGINT only count; afterwards the old handlers are back."""
    before = signal.getsignal(signal.SIGTERM)
    woken: list[int] = []
    signals = Signals(lambda: woken.append(1))
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert (signals.asked, len(woken)) == (2, 2)
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) == before


def test_systemd_hears_each_status_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY, STATUS when it changes, STOPPING; without a socket nothing happens, and a dead one is given up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        notifier.ready()
        for text in ("1 running", "1 running", "2 running"):
            notifier.status(text)
        notifier.stopping()
        heard = [systemd.recv(100).decode() for _ in range(4)]
    assert heard == ["READY=1", "STATUS=1 running", "STATUS=2 running", "STOPPING=1"]
    notifier.alive()
    assert notifier.address == ""
    monkeypatch.delenv("NOTIFY_SOCKET")
    Notifier().ready()
