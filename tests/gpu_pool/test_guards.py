"""kill -9 of the parent leaves no worker alive, whatever it is doing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_pool.process import WorkerProcess
from gpu_pool.types import Exited, Open, RunSpan
from gpu_pool.wire import encode
from tests.gpu_pool.pools import HANDLERS, Announcement, wait_for_end

ROOT = Path(__file__).parents[2]
WITHIN_S = 10.0


@contextlib.contextmanager
def parent(folder: Path, factory: str, do: str, announcement: Announcement) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.gpu_pool.parent", str(folder), factory, do, announcement.path]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("factory", "do"),
    [
        ("Obliging", ""),
        ("Obliging", "freeze"),
        ("Obliging", "wait for cancel"),
        ("Obliging", "swallow cancel"),
        ("Obliging", "spin"),
        ("Obliging", "hog"),
        ("open_slowly", ""),
        ("at once", ""),
    ],
)
def test_no_worker_outlives_its_parent(tmp_path: Path, announcement: Announcement, factory: str, do: str) -> None:
    """Idle, busy, ignoring a cancel, in native code with or without the lock, or starting."""
    with parent(tmp_path, factory, do, announcement) as process:
        pidfd = os.pidfd_open(announcement.wait())
        process.send_signal(signal.SIGKILL)
        assert wait_for_end(pidfd, WITHIN_S)
    os.close(pidfd)


def test_a_stopped_worker_doesnt_outlive_its_parent(tmp_path: Path, announcement: Announcement) -> None:
    """SIGSTOP stops its own threads; the kernel's signal ends it."""
    with parent(tmp_path, "Obliging", "freeze", announcement) as process:
        pid = announcement.wait()
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGKILL)
        assert wait_for_end(pidfd, WITHIN_S)
    os.close(pidfd)


def test_a_worker_whose_parent_has_ended_already() -> None:
    """A worker whose parent isn't the process that it was started for ends at once."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = theirs.fileno()
        command = [sys.executable, "-m", "gpu_pool.worker", "cpu:0", "--fd", str(fd), "--parent", "1"]
        worker = subprocess.run(command, cwd=ROOT, start_new_session=True, pass_fds=[fd], timeout=30)
    assert worker.returncode == -signal.SIGKILL


@pytest.mark.parametrize("do", ["freeze", "spin", "start program"])
def test_the_end_of_the_channel_ends_the_worker(tmp_path: Path, announcement: Announcement, do: str) -> None:
    """Even if the parent goes on; the programs it started end with it."""
    worker = WorkerProcess("cpu:0", os.environ, tmp_path / "log")
    payload = {"do": do, "announce": announcement.path}
    for message in (Open("cpu:0", f"{HANDLERS}:Obliging", {}), RunSpan("task", 0, 1, payload)):
        assert worker.send(encode(message))
    pidfd = os.pidfd_open(announcement.wait())
    worker.channel.shutdown(socket.SHUT_WR)
    assert wait_for_end(pidfd, WITHIN_S)
    assert worker.wait_for_end(WITHIN_S)
    os.close(pidfd)
    assert isinstance(worker.reap()[-1], Exited)
