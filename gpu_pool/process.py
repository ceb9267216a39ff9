"""One worker process as its parent sees it: socket, death notice, log file. Linux 5.4 or newer (pidfd)."""

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
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from gpu_pool.types import Exited, ProtocolError, WorkerReport
from gpu_pool.wire import Lines, WireError, decode_report

LOG_BYTES = 1 << 20
NOISY_TIMES = 16
TAIL_BYTES = 8 << 10
READ_BYTES = 1 << 16
PACKAGES = Path(__file__).resolve().parents[1]


class WorkerProcess:
    """A running worker. Nothing here blocks, except `reap` while the kernel takes a killed process apart."""

    def __init__(self, device: str, env: Mapping[str, str], log: Path) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("workers die with the thread that started them: start them from the main thread")
        self.device = device
        self._log = log
        self._oom_kills = oom_kills()
        self._unsent = bytearray()
        self._lines = Lines()
        self.silent = False
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        try:
            with theirs, opened_log(log, device) as output:
                self._log_start = output.tell()
                self._popen = _started(device, env, theirs.fileno(), output)
            self.pid = self._popen.pid
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            self.channel.close()  # which also ends a worker that did start
            raise

    def send(self, data: bytes) -> bool:
        """Whether all is sent; if not, call again with b"" when the channel takes more. A dead worker swallows it."""
        self._unsent += data
        try:
            while self._unsent:
                del self._unsent[: self.channel.send(self._unsent)]
        except BlockingIOError:
            return False
        except OSError:  # it is dying; its pidfd tells
            self._unsent.clear()
        return True

    def receive(self) -> list[WorkerReport | ProtocolError]:
        """What it said since. `silent` turns true at nonsense and when its end of the channel is closed."""
        data = self._read()
        said = self._parse(data or b"")
        self.silent = self.silent or data == b""
        return said

    def kill(self) -> None:
        """SIGKILL the worker and whatever programs it started: it leads a process group of its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def rotate_log(self, *, quiet: bool) -> None:
        """Set the log aside if it has grown large, all but its last lines. The worker goes on writing to the same file,
        and what it says meanwhile is lost: so while it isn't quiet, only if the log is much too large."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > (LOG_BYTES if quiet else NOISY_TIMES * LOG_BYTES):
                last = _tail(self._log, self._log_start)
                shutil.copyfile(self._log, _aside(self._log))
                os.truncate(self._log, 0)
                self._log_start = 0
                with self._log.open("ab") as log:
                    log.write(last.encode() + b"\n")

    def ended(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def reap(self) -> list[WorkerReport | ProtocolError | Exited]:
        """Once it has ended: its last words and how it ended. Frees everything."""
        self.kill()  # before wait(), which gives the pid, and so the group's number, back to the kernel
        last_words: list[WorkerReport | ProtocolError | Exited] = []
        while data := self._read():
            last_words += self._parse(data)
        _, status, usage = os.wait4(self.pid, 0)
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        self.release()
        return [*last_words, self._exited(self._popen.returncode, 1024 * usage.ru_maxrss)]

    def release(self) -> None:
        self.channel.close()
        os.close(self.pidfd)

    def _read(self) -> bytes | None:
        """None: nothing to read now; b"": nothing any more."""
        try:
            return self.channel.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def _parse(self, data: bytes) -> list[WorkerReport | ProtocolError]:
        said: list[WorkerReport | ProtocolError] = []
        try:
            for line in () if self.silent else self._lines.feed(data):
                said.append(decode_report(line))
        except WireError as error:
            self.silent = True
            said.append(ProtocolError(str(error)))
        return said

    def _exited(self, status: int, peak_bytes: int) -> Exited:
        log = _tail(self._log, self._log_start)
        if status >= 0:
            return Exited(self.pid, code=status, log=log, peak_bytes=peak_bytes)
        oom = -status == signal.SIGKILL and oom_kills() > self._oom_kills
        return Exited(self.pid, signal=_signal_name(-status), log=log, out_of_memory=oom, peak_bytes=peak_bytes)


def log_path(folder: Path, device: str) -> Path:
    return folder / f"worker-{re.sub(r'[^A-Za-z0-9.-]+', '-', device)}.log"


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """How often the kernel's OOM killer struck since boot, in any cgroup; 0 where it can't be read."""
    with contextlib.suppress(OSError):
        return sum(int(line.split()[1]) for line in vmstat.read_text().splitlines() if line.startswith("oom_kill "))
    return 0


def _started(device: str, env: Mapping[str, str], fd: int, output: BinaryIO) -> subprocess.Popen[bytes]:
    # -P: the daemon's working directory may be a share that others write to, so nothing is imported from there
    python = [sys.executable, "-P", "-u", "-X", "faulthandler"]
    return subprocess.Popen(  # noqa: S603  our own interpreter and module, no shell
        [*python, "-m", "gpu_pool.worker", device, "--fd", str(fd), "--parent", str(os.getpid())],
        env={**env, "PYTHONPATH": python_path(env)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=(fd,),
        start_new_session=True,
    )


def python_path(env: Mapping[str, str]) -> str:
    """Where a child finds our packages, and whatever the operator added."""
    return os.pathsep.join(filter(None, (str(PACKAGES), env.get("PYTHONPATH"))))


def opened_log(path: Path, device: str) -> BinaryIO:
    """Open for appending, the last one set aside if it has grown large."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES:
            path.replace(_aside(path))
    log = path.open("ab")
    log.write(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, a worker for {device}\n".encode())
    log.flush()
    return log


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def _tail(path: Path, start: int) -> str:
    """The last lines since `start`; "" where the file was taken away."""
    with contextlib.suppress(OSError), path.open("rb") as log:
        log.seek(max(start, log.seek(0, os.SEEK_END) - TAIL_BYTES))
        return log.read(TAIL_BYTES).decode(errors="replace").strip()
    return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"
