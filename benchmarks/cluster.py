"""What other machines cost the pool: agents at the end of pipes, on this machine.

python -m benchmarks.cluster
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.pool import build_task, run_all, time_dispatches
from gpu_pool.cluster.backend import ClusterBackend
from gpu_pool.cluster.link import CommandLink
from gpu_pool.cluster.messages import Start
from gpu_pool.cluster.node import Node, NodeTimes
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.strategy import auto
from gpu_pool.types import Device

HANDLER = "benchmarks.pool_handlers:SleepHandler"
AGENT = (sys.executable, "-m", "gpu_pool.agent")
SPANS, SPAN_S = 32, 0.25
DISPATCHES, CHOICES, MANY_DEVICES, MANY_NODES = 300, 200, 128, 32


def main() -> None:
    """Print each figure as it is measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = measure_split(folder, here=1, nodes=0)
        two = measure_split(folder, here=0, nodes=2)
        print(f"split over 2 nodes x 2 workers       {one / two:.2f} times one worker (4.00 is perfect)")
        local_s, far_s = (time_spans(folder, here=here, nodes=1 - here) for here in (1, 0))
        print(f"a span here                          {1000 * local_s:.2f} ms from decision to first line (median)")
        print(f"a span in a node                     {1000 * far_s:.2f} ms")
        print(f"choice among {MANY_DEVICES} devices            {1000 * time_choice():.2f} ms (median)")
        print(f"memory of {MANY_NODES} nodes in this process  {measure_nodes(folder) / 2**20:.1f} MiB")


def describe(_: object) -> dict[str, Any]:
    return {}


def make_node(folder: Path, number: int, workers: int) -> Node:
    (folder / "check").write_text("0")
    start = Start(
        handler=HANDLER,
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
    )
    log = folder / f"link{number}.log"
    return Node(f"node{number}", lambda: CommandLink(AGENT, log), lambda: start, facts={}, times=NodeTimes())


@contextmanager
def open_cluster(folder: Path, *, here: int, nodes: int, workers: int = 2) -> Iterator[Pool]:
    """A pool whose workers, here and in the nodes, are all ready."""
    local = LocalBackend(cpu_devices(here), handler=HANDLER, handler_options={}, log_dir=folder / "here")
    backend = ClusterBackend(local, [make_node(folder, number, workers) for number in range(nodes)])
    with Pool(backend, stall_s=60.0) as pool:
        while [device.state for device in pool.devices()].count("idle") < here + nodes * workers:
            pool.poll(1.0)
        yield pool


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
