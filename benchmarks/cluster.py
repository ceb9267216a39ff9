"""What other machines cost the pool: agents at the end of pipes, on this machine.

python -m benchmarks.cluster
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.pool import build_task, run_all, start, time_dispatches, wait_for_done
from gpu_pool.cluster.backend import ClusterBackend
from gpu_pool.cluster.courier import Courier, SpanFiles
from gpu_pool.cluster.link import CommandLink
from gpu_pool.cluster.messages import Start
from gpu_pool.cluster.node import Node, NodeTimes
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.strategy import auto
from gpu_pool.types import Device

HANDLER = "benchmarks.pool_handlers:SleepHandler"
COPY_HANDLER = "benchmarks.pool_handlers:CopyHandler"
AGENT = (sys.executable, "-m", "gpu_pool.agent")
SPANS, SPAN_S = 32, 0.25
FILE_BYTES = 256 << 20
DISPATCHES, CHOICES, MANY_DEVICES, MANY_NODES = 300, 200, 128, 32


def main() -> None:
    """Print each figure as it is measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"memory of {MANY_NODES} nodes in this process  {measure_nodes(folder) / 2**20:.1f} MiB")
        one = measure_split(folder, here=1, nodes=0)
        two = measure_split(folder, here=0, nodes=2)
        print(f"split over 2 nodes x 2 workers       {one / two:.2f} times one worker (4.00 is perfect)")
        local_s, far_s = (time_spans(folder, here=here, nodes=1 - here) for here in (1, 0))
        print(f"a span here                          {1000 * local_s:.2f} ms from decision to first line (median)")
        print(f"a span in a node                     {1000 * far_s:.2f} ms")
        print(f"choice among {MANY_DEVICES} devices            {1000 * time_choice():.2f} ms (median)")
        down_s, up_s, cpu_s = time_files(folder)
        print(f"bytes of files to a node              {FILE_BYTES / down_s / 2**20:.0f} MiB/s")
        print(f"bytes of files back                   {FILE_BYTES / up_s / 2**20:.0f} MiB/s")
        print(f"of this, in this process              {FILE_BYTES / cpu_s / 2**19:.0f} MiB a second of one processor")


def describe(_: object) -> dict[str, Any]:
    return {}


def make_node(folder: Path, number: int, workers: int, courier: Courier | None = None) -> Node:
    (folder / "check").write_text("0")
    start_message = Start(
        handler=COPY_HANDLER if courier else HANDLER,
        options={"cpu": {}, "cuda": {}},
        unloaded_options={},
        cpu_workers=workers,
        cards={"only": [], "exclude": [], "workers": 1},
        log_dir=str(folder / f"node{number}"),
        describe="benchmarks.cluster:describe",
        shared_file=str(folder / "check"),
        shared_text="0",
        beat_s=1.0,
        fence_s=8.0,
        folder=str(folder / f"far{number}") if courier else "",
        roots={"work": str(folder / "work"), "cache": str(folder / "cache")},
        content_bytes=10 * FILE_BYTES,
    )
    log = folder / f"link{number}.log"
    times = NodeTimes()
    link = partial(CommandLink, AGENT, log)
    return Node(f"node{number}", link, lambda: start_message, facts={}, times=times, courier=courier)


@contextmanager
def open_cluster(folder: Path, *, here: int, nodes: int, workers: int = 2) -> Iterator[Pool]:
    """A pool whose workers, here and in the nodes, are all ready."""
    local = LocalBackend(cpu_devices(here), handler=HANDLER, handler_options={}, log_dir=folder / "here")
    backend = ClusterBackend(local, [make_node(folder, number, workers) for number in range(nodes)])
    with Pool(backend, stall_s=60.0) as pool:
        wait_until_idle(pool, here + nodes * workers)
        yield pool


def wait_until_idle(pool: Pool, devices: int) -> None:
    while [device.state for device in pool.devices()].count("idle") < devices:
        pool.poll(1.0)


def measure_split(folder: Path, *, here: int, nodes: int) -> float:
    """Return seconds for one task of sleeping spans."""
    with open_cluster(folder, here=here, nodes=nodes) as pool:
        began_s = time.monotonic()
        run_all(pool, [build_task("one", SPAN_S, SPANS, "split")])
        return time.monotonic() - began_s


def time_spans(folder: Path, *, here: int, nodes: int) -> float:
    """Return the median time from the decision to the handler's first line."""
    with open_cluster(folder, here=here, nodes=nodes, workers=1) as pool:
        return statistics.median(time_dispatches(pool, DISPATCHES))


def time_files(folder: Path) -> tuple[float, float, float]:
    """Return seconds to send a file to a node before a span, to take one back, and of this process for both."""
    given, made = folder / "work" / "1" / "given", folder / "work" / "1" / "made"
    given.parent.mkdir(parents=True)
    (folder / "cache").mkdir()
    given.write_bytes(os.urandom(FILE_BYTES))
    roots = {"work": folder / "work", "cache": folder / "cache"}
    courier = Courier(roots, lambda _: SpanFiles((given,), may_make=(made,)))
    local = LocalBackend([], handler=COPY_HANDLER, handler_options={}, log_dir=folder / "here")
    node = make_node(folder, MANY_NODES, 1, courier)
    with Pool(ClusterBackend(local, [node]), stall_s=60.0) as pool:
        wait_until_idle(pool, 1)
        began_s, cpu_s = time.monotonic(), time.process_time()
        there = time_copy(pool, {"given": str(given), "made": ""})
        back = time_copy(pool, {"given": str(given), "made": str(made)})
        return there["began_s"] - began_s, time.monotonic() - back["ended_s"], time.process_time() - cpu_s


def time_copy(pool: Pool, payload: dict[str, str]) -> Mapping[str, Any]:
    """Return when a worker began and ended a span that copies a file."""
    start(pool, replace(build_task("copy"), payload=payload))
    return wait_for_done(pool).result


def time_choice() -> float:
    """Return the median time that a strategy takes to place a long task on many idle devices."""
    devices = [Device(f"node{n // 4}/GPU-{n}", "cpu", state="idle", node=f"node{n // 4}") for n in range(MANY_DEVICES)]
    task = build_task("one", spans=240, strategy="auto")
    return statistics.median(time_once(task, devices) for _ in range(CHOICES))


def time_once(task: Any, devices: Sequence[Device]) -> float:
    began_s = time.monotonic()
    auto(task, devices, 0)
    return time.monotonic() - began_s


def measure_nodes(folder: Path) -> int:
    """Return by how much the memory of this process grows with nodes of one worker each."""
    before = read_rss_bytes()
    with open_cluster(folder, here=0, nodes=MANY_NODES, workers=1):
        return read_rss_bytes() - before


def read_rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    main()
