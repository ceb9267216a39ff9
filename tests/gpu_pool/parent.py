"""A minimal daemon, to be killed: starts a pool, runs a span on each device, sends its pid, waits.

Usage: python -m tests.gpu_pool.parent LOGS FACTORY DO ANNOUNCE    (DO "": no span)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import Span, Task
from tests.gpu_pool.pools import HANDLERS


def main() -> None:
    logs, factory, do, announce = sys.argv[1:]
    options = {"announce": announce}
    backend = LocalBackend(cpu_devices(1), handler=f"{HANDLERS}:{factory}", handler_options=options, log_dir=Path(logs))
    pool = Pool(backend, stall_s=1000.0)
    if factory == "at once":
        Path(announce).write_text(f"{child()}\n")
    task = Task("t", "cpu", (Span(0, 10),), payload={"do": do, "announce": announce})
    is_announced = bool(do) or factory == "open_slowly"
    while True:
        for device in pool.devices():
            if device.state == "idle" and not is_announced:
                Path(announce).write_text(f"{device.worker_pid}\n")
                is_announced = True
        plan = pool.plan(task, 0) if do else None
        if plan:
            pool.start(plan)
        pool.poll(1000.0)


def child() -> int:
    """Return the pid of the worker that has just been started."""
    return int(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[0])


if __name__ == "__main__":
    main()
