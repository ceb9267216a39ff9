"""A handler that a hostile file has taken over: it tries what it is told, and says how that ended."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_pool.walls.seccomp import MACHINES


def read_file(path: str) -> object:
    return Path(path).read_bytes()


def list_folder(path: str) -> object:
    return [entry.name for entry in Path(path).iterdir()]


def write_file(path: str) -> object:
    return Path(path).write_bytes(b"intruder")


def write_much(path: str, size: int) -> object:
    with Path(path).open("wb") as file:
        file.truncate(size)
        file.seek(size)
        return file.write(b"x")


def make_link(path: str, target: str) -> object:
    Path(path).symlink_to(target)
    return None


def make_pipe(path: str) -> object:
    os.mkfifo(path)
    return None


def start_program(_: str = "") -> object:
    return subprocess.run(["/bin/true"], check=True).returncode


def replace_program(_: str = "") -> object:
    os.execv("/bin/true", ["/bin/true"])  # noqa: S606 - refused


def fork(_: str = "") -> object:
    pid = os.fork()
    if not pid:
        os._exit(0)
    return pid


def open_socket(family: int) -> object:
    return str(socket.socket(family))


def send_signal(pid: int) -> object:
    os.kill(pid, signal.SIGCONT)
    return None


def trace(pid: int) -> object:
    return call("ptrace", 16, pid, 0, 0)


def read_memory(pid: int) -> object:
    return call("process_vm_readv", pid, 0, 0, 0, 0, 0)


def limit_other(pid: int) -> object:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


def take_memory(size: int) -> object:
    return len(bytearray(size))


def start_thread(_: str = "") -> object:
    done = threading.Event()
    thread = threading.Thread(target=done.set)
    thread.start()
    thread.join()
    return done.is_set()


def find_temp(_: str = "") -> object:
    return tempfile.gettempdir()


def read_status(name: str) -> object:
    return Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]


def read_limit(name: str) -> object:
    return resource.getrlimit(getattr(resource, name))


def find_open_calls(_: str = "") -> object:
    """Return the forbidden calls that work; those that are allowed for some arguments are tried one by one."""
    libc = ctypes.CDLL(None, use_errno=True)
    some_arguments = ("clone", "clone3", "fork", "vfork", "kill", "tgkill", "prlimit64")
    calls = [entry for entry in MACHINES[platform.machine()].calls.items() if entry[0] not in some_arguments]
    return " ".join(name for name, number in calls if not is_refused(libc, number))


def is_refused(libc: ctypes.CDLL, number: int) -> bool:
    return libc.syscall(number, -1, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM


def call(name: str, *args: int) -> object:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*args) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return 0


class Intruder:
    def run(self, payload: dict[str, Any], _start: int, _stop: int, progress: Callable[[int], None]) -> dict[str, Any]:
        progress(0)
        deed: Callable[..., object] = getattr(sys.modules[__name__], payload["do"])
        try:
            return {"did": str(deed(*payload["with"]))}
        except (OSError, MemoryError) as error:
            return {"error": type(error).__name__}


def open_handler(_device: str, _options: dict[str, Any]) -> Intruder:
    return Intruder()
