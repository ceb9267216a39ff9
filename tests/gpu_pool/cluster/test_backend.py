"""A pool over this machine and real agents: what happens when one is killed, frozen or comes back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gpu_pool.cluster.backend import ClusterBackend
from gpu_pool.cluster.courier import Courier, ListFiles, SpanFiles
from gpu_pool.cluster.link import CommandLink
from gpu_pool.cluster.node import Node, NodeTimes
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import DeviceChanged, Done, Event, Failed, PoolEvent, RunSpan, Span, Task
from tests.gpu_pool.nodes import FACTS, FAR, make_node, make_start
from tests.gpu_pool.pools import HANDLERS, filter_messages, get_device, poll_until, wait_for_state

JOIN_S = 5.0
TIMES = NodeTimes(beat_s=0.2, fence_s=1.5, lost_s=3.0, retry_s=0.2)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """One worker here and two in box2."""
    local = LocalBackend(cpu_devices(1), handler=f"{HANDLERS}:Obliging", handler_options={}, log_dir=tmp_path / "logs")
    node = make_node(tmp_path / "box2", times=TIMES, command=FAR)
    cluster = ClusterBackend(local, [node])
    made = Pool(cluster, stall_s=30.0, list_troubles=lambda: {node.name: node.trouble})
    poll_until(made, lambda _: [device.state for device in made.devices()].count("idle") == 3)
    yield made
    made.close()


def start(pool: Pool, do: str, spans: int, **more: object) -> None:
    """Start a task of so many spans, one on each device."""
    todo = tuple(Span(5 * n, 5 * n + 5) for n in range(spans))
    plan = pool.plan(Task("task", "cpu", todo, strategy="split", payload={"do": do, **more}), 0)
    assert plan is not None
    pool.start(plan)


def get_agent(pool: Pool) -> int:
    """Return the process that started the workers of box2."""
    pid = get_device(pool, "box2/cpu:0").worker_pid
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def has_failed_on(device: str) -> Callable[[list[PoolEvent]], bool]:
    return lambda events: any(
        isinstance(event, Event) and event.device == device and isinstance(event.message, Failed) for event in events
    )


def test_a_task_is_split_over_machines(pool: Pool) -> None:
    """Each device has a span, and all come back."""
    start(pool, "count", 3)
    events = poll_until(pool, lambda events: len(filter_messages(events, Done)) == 3)
    devices = {event.device for event in events if isinstance(event, Event)}
    assert devices == {"cpu:0", "box2/cpu:0", "box2/cpu:1"}


def test_a_task_of_this_machine_stays_here(pool: Pool) -> None:
    """It reads what the others don't have."""
    todo = tuple(Span(n, n + 1) for n in range(3))
    task = Task("task", "cpu", todo, strategy="split", payload={"do": "count"}, is_local=True)
    plan = pool.plan(task, 0)
    assert plan is not None
    assert [assignment.device for assignment in plan.assignments] == ["cpu:0"]
    assert pool.has_idle(task)
    pool.start(plan)
    assert not pool.has_idle(task)
    assert pool.has_idle(replace(task, is_local=False))


def test_a_killed_agent_takes_its_workers_along_and_is_started_again(pool: Pool) -> None:
    """Spans there are interrupted, the one here is not, and no process is left."""
    workers = [get_device(pool, f"box2/cpu:{n}").worker_pid or 0 for n in range(2)]
    pidfds = [os.pidfd_open(pid) for pid in workers]
    start(pool, "sleep", 3, seconds=2)
    os.kill(get_agent(pool), signal.SIGKILL)
    events = poll_until(pool, lambda events: filter_messages(events, Done) and has_failed_on("box2/cpu:1")(events))
    assert all(failed.fault == "worker" for failed in filter_messages(events, Failed))
    assert {"lost"} <= {
        event.device.state for event in events if isinstance(event, DeviceChanged) and event.device.node
    }
    poll_until(pool, lambda _: all(map(is_over, pidfds)))
    for pidfd in pidfds:
        os.close(pidfd)
    for name in ("box2/cpu:0", "box2/cpu:1"):
        wait_for_state(pool, "idle", name)


def is_over(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_frozen_agent_is_lost_and_ends_its_workers_when_it_wakes(pool: Pool) -> None:
    """What it does then is told to nobody: its work has been done elsewhere."""
    agent, worker = get_agent(pool), get_device(pool, "box2/cpu:0").worker_pid or 0
    start(pool, "sleep", 3, seconds=600)
    os.kill(agent, signal.SIGSTOP)
    poll_until(pool, has_failed_on("box2/cpu:0"))
    assert get_device(pool, "box2/cpu:0").state == "lost"
    assert "said nothing" in pool.node_troubles["box2"]
    pidfd = os.pidfd_open(worker)
    os.kill(agent, signal.SIGCONT)
    poll_until(pool, lambda _: is_over(pidfd))
    os.close(pidfd)
    wait_for_state(pool, "idle", "box2/cpu:0")
    assert pool.node_troubles["box2"] == ""


def test_a_machine_that_joins_takes_work_within_five_seconds(tmp_path: Path) -> None:
    """With the times of the settings; a machine that tests keep busy gets three tries."""
    there, took_s = tmp_path / "there", list[float]()
    command = ("sh", "-c", f"test -e {there} && exec setsid --wait {sys.executable} -m gpu_pool.agent")
    node = make_node(tmp_path / "box2", command=command, workers=1)
    local = LocalBackend([], handler=f"{HANDLERS}:Obliging", handler_options={}, log_dir=tmp_path / "logs")
    with Pool(ClusterBackend(local, [node]), stall_s=30.0, list_troubles=lambda: {"box2": node.trouble}) as pool:
        poll_until(pool, lambda _: "ended" in pool.node_troubles["box2"])
        while len(took_s) < 3 and min(took_s, default=JOIN_S) >= JOIN_S:
            there.touch()
            joined_at_s = time.monotonic()
            wait_until_idle(pool, 1)
            start(pool, "count", 1)
            poll_until(pool, lambda events: filter_messages(events, Done))
            took_s.append(time.monotonic() - joined_at_s)
            there.unlink()
            os.kill(get_agent(pool), signal.SIGKILL)
            wait_for_state(pool, "lost", "box2/cpu:0")
    assert min(took_s) < JOIN_S, took_s


@contextmanager
def open_apart(folder: Path, list_files: ListFiles, far: Path, command: Sequence[str], workers: int) -> Iterator[Pool]:
    """A pool of workers in box2 alone, which sees no file of this machine."""
    roots = {"work": folder / "work", "cache": folder / "cache"}
    for root in roots.values():
        root.mkdir()
    message = replace(
        make_start(folder, workers=workers, times=TIMES),
        folder=str(far),
        roots={name: str(root) for name, root in roots.items()},
        content_bytes=1 << 30,
    )
    courier = Courier(roots, list_files)
    node = Node(
        "box2",
        lambda: CommandLink(command, folder / "link.log"),
        lambda: message,
        facts=FACTS,
        times=TIMES,
        courier=courier,
    )
    local = LocalBackend([], handler=f"{HANDLERS}:Obliging", handler_options={}, log_dir=folder / "logs")
    with Pool(ClusterBackend(local, [node]), stall_s=30.0, list_troubles=lambda: {"box2": node.trouble}) as pool:
        wait_until_idle(pool, workers)
        yield pool


def wait_until_idle(pool: Pool, devices: int) -> None:
    poll_until(pool, lambda _: [device.state for device in pool.devices()].count("idle") == devices)


def test_a_worker_without_its_file_does_not_block_its_machine(tmp_path: Path) -> None:
    """It alone is ended and started again; the other one's file arrives, and the link stays."""
    given, made = tmp_path / "work" / "given", tmp_path / "work" / "made"

    def list_files(run: RunSpan) -> SpanFiles:
        return SpanFiles((given,), (Path(f"{made}-{run.start or 'never'}"),))

    with open_apart(tmp_path, list_files, tmp_path / "far", FAR, workers=2) as pool:
        given.write_bytes(b"x" * 1000)
        agent = get_agent(pool)
        start(pool, "copy", 2, given=str(given), made=str(made))
        events = poll_until(pool, lambda events: filter_messages(events, Done) and filter_messages(events, Failed))
        assert [(failed.start, failed.fault) for failed in filter_messages(events, Failed)] == [(0, "worker")]
        assert Path(f"{made}-5").read_bytes() == given.read_bytes()
        wait_until_idle(pool, 2)
        assert (get_agent(pool), pool.node_troubles["box2"]) == (agent, "")


ROOMY = (
    "import gpu_pool.agent.files as altered; altered.LEAST_FREE_BYTES = 1 << 20;"
    "import gpu_pool.agent.__main__ as agent; agent.main()"
)
"""An agent that a smaller disk is enough for."""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mount"), reason="mounts a small disk, for which it must be root"
)
def test_a_machine_whose_disk_fills_up_is_used_again_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was sent does not fit: its span ends, and it says why."""
    monkeypatch.setattr("gpu_pool.cluster.node.RECHECK_S", 0.2)
    disk, given, made = tmp_path / "disk", tmp_path / "work" / "given", tmp_path / "work" / "made"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "musedrop-test", str(disk)], check=True)

    def list_files(run: RunSpan) -> SpanFiles:
        return SpanFiles((given,), (Path(f"{made}-{run.start}"),))

    try:
        with open_apart(tmp_path, list_files, disk / "far", (sys.executable, "-c", ROOMY), workers=1) as pool:
            given.write_bytes(os.urandom(8 << 20))
            start(pool, "copy", 1, given=str(given), made=str(made))
            events = poll_until(pool, lambda events: filter_messages(events, Failed))
            assert [failed.fault for failed in filter_messages(events, Failed)] == ["worker"]
            assert "No space left on device" in get_device(pool, "box2/cpu:0").reason
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            wait_until_idle(pool, 1)
            start(pool, "copy", 1, given=str(given), made=str(made))
            poll_until(pool, lambda events: filter_messages(events, Done))
            assert Path(f"{made}-0").read_bytes() == given.read_bytes()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
