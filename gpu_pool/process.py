"""One worker process as its parent sees it: socket, exit notice, log file.

Linux 5.4 or newer (pidfd).
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from gpu_pool.types import Exited, Progress, ProtocolError, WorkerReport
from gpu_pool.walls import Walls
from gpu_pool.wire import LineSplitter, WireError, decode_report

LOG_BYTES = 1 << 20
NOISY_TIMES = 16
TAIL_BYTES = 8 << 10
READ_BYTES = 1 << 16
MAX_LAST_READS = 64
PACKAGES = Path(__file__).resolve().parents[1]


class WorkerProcess:
    """A running worker. No method blocks, except `reap` while the kernel ends a killed process.

    pid      of the process
    pidfd    readable when the process has ended
    channel  the socket to it, readable when it has sent something
    is_mute  whether nothing more is read from it: it has closed its end of the channel, or broken
             the protocol

    RuntimeError outside the main thread, OSError if the process can't be started.
    """

    def __init__(self, device: str, env: Mapping[str, str], log: Path, walls: Walls | None = None) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("workers die with the thread that started them: start them from the main thread")
        self.device = device
        self._log = log
        self._oom_kills = count_oom_kills()
        self._unsent = bytearray()
        self._lines = LineSplitter()
        self.is_mute = False
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        try:
            with theirs, open_log(log, device) as output:
                self._log_start = output.tell()
                self._popen = _start_process(device, env, theirs.fileno(), output, walls)
            self.pid = self._popen.pid
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            self.channel.close()  # which also ends a worker that did start
            raise

    def send(self, data: bytes) -> bool:
        """Send data; return whether all is sent.

        If not, call again with b"" when the channel takes more.
        A worker that has ended swallows it.
        """
        self._unsent += data
        try:
            while self._unsent:
                del self._unsent[: self.channel.send(self._unsent)]
        except BlockingIOError:
            return False
        except OSError:  # the worker is ending; its pidfd reports that
            self._unsent.clear()
        return True

    def receive(self) -> list[WorkerReport | ProtocolError]:
        """Return what it has sent since the last call; sets `is_mute`.

        Of reports of progress in a row only the last is returned: a flood of them costs little.
        """
        data = self._read()
        messages = self._parse(data or b"")
        self.is_mute = self.is_mute or data == b""
        nexts = [*messages[1:], None]
        return [
            message
            for message, following in zip(messages, nexts, strict=False)
            if not (isinstance(message, Progress) and isinstance(following, Progress))
        ]

    def kill(self) -> None:
        """SIGKILL the worker and the programs it started: it leads a process group of its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def rotate_log(self, *, quiet: bool) -> None:
        """Move a large log aside, all but its last lines.

        The worker goes on writing to the same file, and what it writes during the copy is lost. So
        while it isn't quiet, the log is moved only if it is NOISY_TIMES too large.
        """
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > (LOG_BYTES if quiet else NOISY_TIMES * LOG_BYTES):
                last = _read_tail(self._log, self._log_start)
                shutil.copyfile(self._log, _get_old_path(self._log))
                os.truncate(self._log, 0)
                self._log_start = 0
                with self._log.open("ab") as log:
                    log.write(last.encode() + b"\n")

    def wait_for_end(self, timeout_s: float) -> bool:
        """Return whether the process has ended in time."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def reap(self) -> list[WorkerReport | ProtocolError | Exited]:
        """Free everything after the process has ended; return its last messages and its exit."""
        self.kill()  # before wait(), which gives the pid, and so the group's number, back to the kernel
        messages: list[WorkerReport | ProtocolError | Exited] = []
        for _ in range(MAX_LAST_READS):  # a process that left the group may go on sending
            if not (data := self._read()):
                break
            messages += self._parse(data)
        _, status, usage = os.wait4(self.pid, 0)
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        self.close()
        return [*messages, self._build_exited(self._popen.returncode, 1024 * usage.ru_maxrss)]

    def close(self) -> None:
        """Close channel and pidfd; the process isn't waited for."""
        self.channel.close()
        os.close(self.pidfd)

    def _read(self) -> bytes | None:
        """Return None if there is nothing to read now, b"" at the end of the channel."""
        try:
            return self.channel.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def _parse(self, data: bytes) -> list[WorkerReport | ProtocolError]:
        messages: list[WorkerReport | ProtocolError] = []
        try:
            for line in () if self.is_mute else self._lines.feed(data):
                messages.append(decode_report(line))
        except WireError as error:
            self.is_mute = True
            messages.append(ProtocolError(str(error)))
        return messages

    def _build_exited(self, status: int, peak_bytes: int) -> Exited:
        log = _read_tail(self._log, self._log_start)
        if status >= 0:
            return Exited(self.pid, code=status, log=log, peak_bytes=peak_bytes)
        oom = -status == signal.SIGKILL and count_oom_kills() > self._oom_kills
        return Exited(self.pid, signal=_get_signal_name(-status), log=log, out_of_memory=oom, peak_bytes=peak_bytes)


class Program:
    """A module of ours that runs beside the daemon, in a process group of its own, and ends with it.

    stdin  what it reads from its standard input: less than a pipe holds, 64 KiB

    Start it from the main thread. OSError if it can't be started.
    """

    def __init__(self, module: str, args: Sequence[str], stdin: bytes, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open_log(log, module) as output:
            self._popen = subprocess.Popen(  # noqa: S603  our own interpreter and module, no shell
                [sys.executable, "-P", "-X", "faulthandler", "-m", module, "--parent", str(os.getpid()), *args],
                env={**os.environ, "PYTHONPATH": build_python_path(os.environ)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        assert self._popen.stdin  # noqa: S101  it is a pipe
        with contextlib.suppress(BrokenPipeError), self._popen.stdin as pipe:
            pipe.write(stdin)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def kill(self) -> None:
        """SIGKILL it; its workers end with it. One that hangs in a driver isn't waited for long."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(1.0)


def log_path(folder: Path, device: str) -> Path:
    """Return the log of the worker on a device, in `folder` whatever the device is called."""
    return folder / f"worker-{re.sub(r'[^A-Za-z0-9.-]+', '-', device)}.log"


def count_oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes the kernel's OOM killer killed since boot, in any cgroup.

    0 where it can't be read.
    """
    with contextlib.suppress(OSError):
        return sum(int(line.split()[1]) for line in vmstat.read_text().splitlines() if line.startswith("oom_kill "))
    return 0


def _start_process(
    device: str, env: Mapping[str, str], fd: int, output: BinaryIO, walls: Walls | None
) -> subprocess.Popen[bytes]:
    # -P: import nothing from the working directory, which may be a share that others write to
    limits = ["--walls", walls.to_json()] if walls else []
    python = [sys.executable, "-P", "-u", "-X", "faulthandler"]
    return subprocess.Popen(  # noqa: S603  our own interpreter and module, no shell
        [*python, "-m", "gpu_pool.worker", device, "--fd", str(fd), "--parent", str(os.getpid()), *limits],
        env={**env, "PYTHONPATH": build_python_path(env)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=(fd,),
        start_new_session=True,
    )


def build_python_path(env: Mapping[str, str]) -> str:
    """Return the PYTHONPATH of a child: these packages, and those that the operator added."""
    return os.pathsep.join(filter(None, (str(PACKAGES), env.get("PYTHONPATH"))))


def open_log(path: Path, device: str) -> BinaryIO:
    """Open a log for appending and write a heading; a large one is moved aside first.

    OSError if it can't be.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES:
            path.replace(_get_old_path(path))
    log = path.open("ab")
    log.write(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, a worker for {device}\n".encode())
    log.flush()
    return log


def _get_old_path(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def _read_tail(path: Path, start: int) -> str:
    """Return the last lines after offset `start`; "" where the file is missing."""
    with contextlib.suppress(OSError), path.open("rb") as log:
        log.seek(max(start, log.seek(0, os.SEEK_END) - TAIL_BYTES))
        return log.read(TAIL_BYTES).decode(errors="replace").strip()
    return ""


def _get_signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"
