"""Nodes of a real Ray cluster: two of them on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpu_pool.cluster.backend import ClusterBackend
from gpu_pool.cluster.courier import Courier, SpanFiles
from gpu_pool.cluster.link import CommandLink
from gpu_pool.cluster.node import Node, NodeTimes
from gpu_pool.cluster.probe import NodeProbe
from gpu_pool.cluster.ray_bridge import explain_small_store, is_private, resolve
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import Done, Event, Failed, RunSpan, Span, Task
from tests.gpu_pool.nodes import FACTS, RAY_SECRET, RayCluster, make_start
from tests.gpu_pool.pools import HANDLERS, filter_messages, get_device, poll_until

TIMES = NodeTimes(beat_s=0.2, fence_s=25.0, lost_s=30.0, retry_s=0.5)


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token that all processes of the cluster have."""
    for name, value in RAY_SECRET.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def cluster(secret: None) -> Iterator[RayCluster]:  # noqa: ARG001
    made = RayCluster()
    yield made
    made.end()


@pytest.mark.timeout(300)
def test_a_node_of_a_cluster_works_is_killed_and_joins_again(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at it finds it, files pass that its object store is too small for, spans are interrupted at once, also
    by the end of the bridge, those here go on, and no worker is left there.
    """
    links = list[CommandLink]()

    bridge = cluster.bridge

    def open_link() -> CommandLink:
        links.append(CommandLink(bridge, tmp_path / "link.log"))
        return links[-1]

    with subprocess.Popen([*bridge, "--least-store-mib", "64"], stderr=subprocess.PIPE, text=True) as picky:
        told = picky.communicate(timeout=120)[1]
        assert "box2 has an object store of 2 MiB, and cluster.object_store_mib asks for 64" in told
    with monkeypatch.context() as patched:
        patched.setenv("RAY_AUTH_TOKEN", "9" * 64)
        assert "doesn't take our token: give all machines" in knock(cluster.address)

    report = NodeProbe(open_link(), make_start(tmp_path, workers=1), 120.0).run()
    assert (report.trouble, report.facts) == ("", FACTS)
    local = LocalBackend(cpu_devices(1), handler=f"{HANDLERS}:Obliging", handler_options={}, log_dir=tmp_path / "logs")
    work, cache = tmp_path / "work", tmp_path / "cache"
    given, made = work / "1" / "given", work / "1" / "made"
    given.parent.mkdir(parents=True)
    cache.mkdir()
    given.write_bytes(os.urandom(3 << 20))
    far: dict[str, Any] = {
        "folder": str(tmp_path / "far"),
        "roots": {"work": str(work), "cache": str(cache)},
        "content_bytes": 1 << 30,
    }

    def list_files(run: RunSpan) -> SpanFiles:
        return SpanFiles((given,), (Path(f"{made}-{run.start}"),)) if run.payload["do"] == "copy" else SpanFiles()

    courier = Courier({"work": work, "cache": cache}, list_files)
    message = replace(make_start(tmp_path, workers=1), **far)
    node = Node("box2", open_link, lambda: message, facts=FACTS, times=TIMES, courier=courier)
    with Pool(ClusterBackend(local, [node]), stall_s=60.0, list_troubles=lambda: {"box2": node.trouble}) as pool:

        def is_ready(_: object) -> bool:
            return [device.state for device in pool.devices()].count("idle") == 2

        wait_long(pool, is_ready)
        start(pool, "copy", given=str(given), made=str(made))
        events = poll_until(pool, lambda events: len(filter_messages(events, Done)) == 2)
        assert {event.device for event in events if isinstance(event, Event)} == {"cpu:0", "box2/cpu:0"}
        assert Path(f"{made}-0").read_bytes() == Path(f"{made}-5").read_bytes() == given.read_bytes()
        assert [path.stat().st_size for path in (tmp_path / "far" / "content").iterdir()] == [3 << 20]
        poll_until(pool, is_ready)
        interrupt(pool, lambda: os.kill(links[-1]._popen.pid, signal.SIGKILL))
        wait_long(pool, is_ready)
        interrupt(pool, lambda: cluster.say("kill"))
        cluster.say("join")
        poll_until(pool, lambda _: get_device(pool, "box2/cpu:0").state == "lost")
        wait_long(pool, is_ready)


def interrupt(pool: Pool, end: Callable[[], None]) -> None:
    """Let something end that leads to the node, and see that the span there is over, and the one here is not."""
    worker = os.pidfd_open(get_device(pool, "box2/cpu:0").worker_pid or 0)
    start(pool, "sleep", seconds=3)
    end()
    events = poll_until(pool, lambda events: filter_messages(events, Failed) and filter_messages(events, Done))
    assert [failed.code for failed in filter_messages(events, Failed)] == ["device_lost"]
    poll_until(pool, lambda _: is_over(worker))
    os.close(worker)


def start(pool: Pool, do: str, **more: object) -> None:
    todo = (Span(0, 5), Span(5, 10))
    plan = pool.plan(Task("task", "cpu", todo, strategy="split", payload={"do": do, **more}), 0)
    assert plan is not None
    pool.start(plan)


def wait_long(pool: Pool, until: Any) -> None:
    """Ray takes seconds to start what it is asked for, more on a busy machine."""
    deadline = time.monotonic() + 120
    while not until([]):
        assert time.monotonic() < deadline, pool.node_troubles
        pool.poll(0.5)


def is_over(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_cluster_without_a_password_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reaches it runs programs on all its machines."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert "without authentication" in knock("10.0.0.1:6379")


def test_a_cluster_that_asks_for_no_password_is_not_used(secret: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Though the daemon has one: it would be let in with any, and so would everyone."""
    with monkeypatch.context() as patched:
        patched.setenv("RAY_AUTH_MODE", "disabled")
        head = RayCluster("head")
    try:
        assert "runs without authentication: start it again with RAY_AUTH_MODE=token on all machines" in knock(
            head.address
        )
    finally:
        head.end()


@pytest.mark.parametrize("host", ["8.8.8.8", "[2001:4860:4860::8888]", "[::ffff:8.8.8.8]", "[::]", "100.64.0.1"])
def test_a_cluster_that_the_world_reaches_is_not_used(host: str) -> None:
    """Only addresses of private networks."""
    with pytest.raises(SystemExit, match="no address of a private network"):
        resolve(f"{host}:6379")


def test_a_name_is_what_it_leads_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """One public address is enough to refuse it; a private one takes its place."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 1)) for host in ("10.0.0.1", "8.8.8.8")]
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
        with pytest.raises(SystemExit, match=r"^box1:1 is 8\.8\.8\.8, which is no address"):
            resolve("box1:1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert resolve(f"localhost:{port}") == f"127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.1.5", "127.0.0.1", "fd00::1", "fe80::1", "169.254.1.1"])
def test_an_address_of_a_private_network_is_used(host: str) -> None:
    """As the documentation says to set it up, and those of a cable between two machines."""
    assert is_private(host)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "the Ray cluster at 127.0.0.1:1 can't be reached: [Errno 111] Connection refused"),
        ("box1.invalid:1", "the Ray cluster at box1.invalid:1 can't be reached: "),
    ],
)
def test_a_cluster_that_is_not_there_is_named(secret: None, address: str, told: str) -> None:  # noqa: ARG001
    """In the last line, which is what `problems` say; Ray itself tries for minutes and says nothing."""
    assert knock(address).startswith(told)


def test_without_the_token_it_is_said_where_it_belongs(
    secret: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Ray would crash."""
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"there is no token of the Ray cluster in {tmp_path}/.ray/auth_token" in knock("127.0.0.1:1")


def knock(address: str) -> str:
    """Return the last line of a bridge that can't be used."""
    run = [sys.executable, "-m", "gpu_pool.cluster.ray_bridge", "--address", address, "--node", "box2"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr.splitlines()[-1]


def test_a_small_object_store_is_named() -> None:
    """Where the settings ask for more; files of jobs need none."""
    node = {"Resources": {"object_store_memory": float(80 << 20)}}
    assert explain_small_store("box2", node, 0) == explain_small_store("box2", node, 80) == ""
    assert "of 80 MiB, and cluster.object_store_mib asks for 512" in explain_small_store("box2", node, 512)
    assert "--object-store-memory 536870912" in explain_small_store("box2", {}, 512)
