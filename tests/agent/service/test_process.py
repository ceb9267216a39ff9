"""One daemon for each state folder, signals that only count, and the limit of a drain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.service.process import AlreadyRunning, Drain, InstanceLock, Signals, read_daemon_pid
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


def test_a_drain_goes_on_while_units_advance() -> None:
    """The first look is news, a change is, standing still isn't; the limit is the limit."""
    drain = Drain(now_s=100.0, limit_s=60.0)
    assert [drain.note_progress(done) for done in (0, 0, 3, 3, 1)] == [True, False, True, False, True]
    assert [drain.is_over(now) for now in (100.0, 159.9, 160.0)] == [False, False, True]


CLOSED = (
    "import os, sys; from pathlib import Path; from agent.service.process import open_closed_streams\n"
    "print(open_closed_streams(Path(sys.argv[1])) or 'nothing', file=sys.stderr, flush=True)\n"
    "os.write(2, b'below Python'); assert open(sys.argv[1]).fileno() > 2"
)


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-", "0<&- 2>&-"])
def test_closed_streams_are_opened(tmp_path: Path, closed: str) -> None:
    """What would go to a closed stderr is in a file, and no later file gets the number of a stream."""
    log = tmp_path / "state" / "logs" / "daemon.log"
    command = ["sh", "-c", f'"$0" -c "$1" "$2" {closed}', sys.executable, CLOSED, str(log)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert log.read_text().splitlines() == [f"the daemon was started without stderr: its log is {log}", "below Python"]
    assert log.parent.stat().st_mode & 0o077 == 0


def test_streams_that_are_open_stay(tmp_path: Path) -> None:
    """No file is made."""
    command = [sys.executable, "-c", CLOSED.replace("sys.argv[1]).fileno", "os.devnull).fileno"), str(tmp_path / "log")]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert done.stderr == b"nothing\nbelow Python"
    assert not (tmp_path / "log").exists()
