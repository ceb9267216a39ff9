"""Real workers behind their walls, taken over by what they opened: what they can't do, and what they still can."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_pool.process import PACKAGES, WorkerProcess
from gpu_pool.types import Done, Failed, Open, RunSpan
from gpu_pool.walls import Gates, Walls
from gpu_pool.walls.landlock import NOTHING, explain_version, read_version
from gpu_pool.walls.privileges import MOST_THREADS
from gpu_pool.wire import encode
from tests.gpu_pool.intruder import __name__ as intruder
from tests.gpu_pool.intruder import read_status

MIB = 1 << 20
READ_ALL, SET_CAPABILITIES = 1 << 2, 1 << 8
Try = Callable[..., dict[str, Any]]

needs_landlock = pytest.mark.skipif(not read_version(), reason="the kernel has no Landlock")


def run_in(worker: WorkerProcess, do: str, *args: object) -> dict[str, Any]:
    """Have the worker do it; return what it says."""
    worker.send(encode(RunSpan("task", 0, 1, {"do": do, "with": args})))
    worker.channel.setblocking(True)
    worker.channel.settimeout(60)
    while True:
        messages = worker.receive()
        ends = [message for message in messages if isinstance(message, Done)]
        if ends:
            return dict(ends[0].result)
        assert not worker.is_mute, messages


def fail_in(worker: WorkerProcess) -> Failed:
    """Have the worker do what it can't; return how that ended."""
    worker.send(encode(RunSpan("task", 0, 1, {"do": "nothing that there is"})))
    worker.channel.settimeout(60)
    while True:
        messages = worker.receive()
        if ends := [message for message in messages if isinstance(message, Failed)]:
            return ends[0]
        assert not worker.is_mute, messages


def start_worker(folder: Path, walls: Walls) -> WorkerProcess:
    worker = WorkerProcess("cpu:0", os.environ, folder / "log", walls)
    worker.send(encode(Open("cpu:0", f"{intruder}:open_handler", {})))
    return worker


@pytest.fixture
def places(tmp_path: Path) -> Path:
    for name in ("work", "media", "state"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("secret")
    return tmp_path


def build_test_walls(places: Path, **more: Any) -> Walls:
    read = (
        str(places / "media"),
        str(places / "later"),
        "/usr",
        "/lib",
        "/lib64",
        "/proc/self",
        str(PACKAGES),
        *sys.path,
        sys.base_prefix,
    )
    return Walls(tuple(filter(None, read)), (str(places / "work"), "/dev/null"), **more)


@pytest.fixture
def attempt(places: Path) -> Iterator[Try]:
    """Try something in a worker of the processor."""
    worker = start_worker(places, build_test_walls(places, memory_bytes=1 << 30, file_bytes=MIB))
    yield lambda do, *args: run_in(worker, do, *args)
    worker.kill()
    worker.reap()


@needs_landlock
def test_files_outside_are_closed(attempt: Try, places: Path) -> None:
    """Neither read nor written nor listed: the ledger, results, a home, the system's settings, the daemon's memory."""
    of_daemon = [f"/proc/{os.getpid()}/{name}" for name in ("environ", "mem", "maps", "status")]
    of_system = [path for path in ("/etc/passwd", "/dev/kmsg") if Path(path).exists()]  # containers lack some
    for path in (str(places / "state" / "file"), *of_system, *of_daemon):
        assert attempt("read_file", path) == {"error": "PermissionError"}
    assert attempt("list_folder", str(places)) == {"error": "PermissionError"}
    for place in (places / "state" / "file", places / "state" / "new", places / "media" / "file", places / "new"):
        assert attempt("write_file", str(place)) == {"error": "PermissionError"}
    assert (places / "state" / "file").read_text() == "secret"


@needs_landlock
def test_its_own_files_are_open(attempt: Try, places: Path) -> None:
    """It reads media and writes into its folder, but makes no links and pipes there, which others would follow."""
    assert "did" in attempt("read_file", str(places / "media" / "file"))
    assert "did" in attempt("write_file", str(places / "work" / "new"))
    link = ("make_link", str(places / "work" / "link"), str(places / "state" / "file"))
    assert attempt(*link) == {"error": "PermissionError"}
    assert attempt("make_pipe", str(places / "work" / "pipe")) == {"error": "PermissionError"}


@pytest.mark.parametrize("do", ["start_program", "replace_program", "fork"])
def test_no_programs_and_processes(attempt: Try, do: str) -> None:
    """Nothing but threads."""
    assert attempt(do) == {"error": "PermissionError"}
    assert attempt("start_thread") == {"did": "True"}


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK])
def test_no_sockets(attempt: Try, family: int) -> None:
    """The channel that it was born with is all it has."""
    assert attempt("open_socket", int(family)) == {"error": "PermissionError"}


@pytest.mark.parametrize("do", ["send_signal", "trace", "read_memory", "limit_other"])
def test_other_processes_are_out_of_reach(attempt: Try, do: str) -> None:
    """The daemon above all: no signal, no tracing, no look into its memory, no limit."""
    assert attempt(do, os.getpid()) == {"error": "PermissionError"}


def test_every_forbidden_call_fails(attempt: Try) -> None:
    """Mounts, modules, io_uring, bpf, perf and all others of the list."""
    assert attempt("find_open_calls", "") == {"did": ""}


def test_limits(attempt: Try, places: Path) -> None:
    """Of the size of a file, of memory, of threads of its user, and no core dump."""
    assert attempt("write_much", str(places / "work" / "large"), MIB) == {"error": "OSError"}
    assert attempt("write_much", str(places / "work" / "small"), MIB // 2) == {"did": "1"}
    assert attempt("take_memory", 1 << 50) == {"error": "MemoryError"}
    assert attempt("read_limit", "RLIMIT_CORE") == {"did": "(0, 0)"}
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    least = MOST_THREADS if hard == resource.RLIM_INFINITY else min(MOST_THREADS, hard)
    assert attempt("read_limit", "RLIMIT_NPROC") == {"did": f"({least}, {least})"}


def test_no_privileges(attempt: Try) -> None:
    """No capability, none to come, and a filter of system calls; only beside root it reads what others own."""
    own = {name: int(str(read_status(name)), 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")}
    for name, before in own.items():
        kept = before & READ_ALL if os.geteuid() == 0 and name in ("CapEff", "CapPrm") else 0
        if name != "CapBnd" or own["CapEff"] & SET_CAPABILITIES:
            assert int(attempt("read_status", name)["did"], 16) == kept
    assert attempt("read_status", "NoNewPrivs") == {"did": "1"}
    assert attempt("read_status", "Seccomp") == {"did": "2"}


@needs_landlock
def test_a_worker_on_a_card_may_read_and_run_but_not_write(places: Path) -> None:
    """What a driver needs stays open; it writes into its folders only, and looks into no other process."""
    worker = start_worker(places, build_test_walls(places, hides_files=False, is_alone=False))
    try:
        assert "did" in run_in(worker, "read_file", str(places / "state" / "file"))
        assert run_in(worker, "write_file", str(places / "state" / "file")) == {"error": "PermissionError"}
        assert "did" in run_in(worker, "write_file", str(places / "work" / "new"))
        assert run_in(worker, "start_program") == {"did": "0"}
        assert run_in(worker, "trace", os.getpid()) == {"error": "PermissionError"}
        assert run_in(worker, "read_memory", os.getpid()) == {"error": "PermissionError"}
    finally:
        worker.kill()
        worker.reap()


@needs_landlock
def test_a_worker_whose_folder_was_replaced_asks_to_be_replaced(places: Path) -> None:
    """A rule is about a folder, not about its name: after a mount only a new worker can open it."""
    worker = start_worker(places, build_test_walls(places))
    try:
        assert "did" in run_in(worker, "read_file", str(places / "media" / "file"))
        assert fail_in(worker).code == "internal"
        (places / "media").rename(places / "old")
        (places / "media").mkdir()
        failed = fail_in(worker)
        assert (failed.code, failed.fault, failed.retry) == ("worker_outdated", "worker", True)
        assert "did" in run_in(worker, "start_thread")  # what needs no such folder goes on
    finally:
        worker.kill()
        worker.reap()


@needs_landlock
def test_a_folder_that_appears_later_asks_for_a_new_worker(places: Path) -> None:
    """Such as a share that is mounted after the daemon started."""
    worker = start_worker(places, build_test_walls(places))
    try:
        assert "did" in run_in(worker, "start_thread")
        (places / "later").mkdir()
        assert fail_in(worker).code == "worker_outdated"
    finally:
        worker.kill()
        worker.reap()


def test_a_folder_that_appears_while_the_walls_are_raised_counts_as_missing(tmp_path: Path) -> None:
    """It has no rule: only a new worker can open it."""
    share, other = tmp_path / "share", tmp_path / "other"
    other.mkdir()
    gates = Gates(Walls(read=(str(share), str(other))))
    share.mkdir()
    gates.note_walls()
    assert gates.have_moved()
    share.rmdir()
    assert not gates.have_moved()


def test_folders_to_write_to_are_made(places: Path) -> None:
    """A cache that was deleted, by the next worker; but none below a share that is away."""
    cache, away = places / "cache", places / "share" / "staging"
    walls = Walls((), (str(cache), str(away)), temp=str(cache / "tmp"), hides_files=False)
    worker = start_worker(places, walls)
    try:
        assert run_in(worker, "find_temp", "") == {"did": str(cache / "tmp")}
        assert "did" in run_in(worker, "write_file", str(cache / "new"))
        assert not away.parent.exists()
    finally:
        worker.kill()
        worker.reap()


def test_the_daemon_cannot_be_traced() -> None:
    """Not by processes of its own user either."""
    code = "import ctypes, gpu_pool.walls.privileges as p; p.forbid_tracing(); print(ctypes.CDLL(None).prctl(3, 0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGES)
    assert done.stdout == "0\n"


def test_what_a_kernel_lacks_is_named() -> None:
    """For `musedrop doctor`: nothing where it has all."""
    assert explain_version(0) == [NOTHING]
    assert len(explain_version(2)) == 1
    assert explain_version(7) == []


def test_walls_arrive_as_they_were_sent() -> None:
    """On the command line of the worker."""
    walls = Walls(("/a b", "/c"), ("/d",), hides_files=False, memory_bytes=5)
    assert Walls.from_json(walls.to_json()) == walls
