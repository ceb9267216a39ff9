"""The actor that Ray starts on a node: it owns the agent's pipe and passes bytes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ray

PACKAGES = Path(__file__).resolve().parents[2]
READ_BYTES = 1 << 16
"""Less than what Ray passes along with a call: its object store isn't used, however small or full it is."""
END_S = 5.0


class AgentPipe:
    """The agent of the node, whose input and output are read and written from afar.

    `write` and `read` have a thread each, so that one doesn't wait for the other; calls of one keep their order.
    """

    def __init__(self) -> None:
        env = {name: value for name, value in os.environ.items() if (name, value) != ("CUDA_VISIBLE_DEVICES", "")}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PACKAGES), env.get("PYTHONPATH"))))
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "gpu_pool.agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            bufsize=0,
            start_new_session=True,
        )

    def write(self, data: bytes) -> None:
        """Give the agent data. OSError if it has ended."""
        assert self._popen.stdin  # noqa: S101  it is a pipe
        view = memoryview(data)
        while view:
            view = view[self._popen.stdin.write(view) or 0 :]

    def read(self) -> bytes:
        """Wait for what the agent says; b"" when it has ended."""
        assert self._popen.stdout  # noqa: S101  it is a pipe
        return os.read(self._popen.stdout.fileno(), READ_BYTES)

    def end(self) -> None:
        """End the agent and its workers."""
        assert self._popen.stdin  # noqa: S101  it is a pipe
        self._popen.stdin.close()
        self._popen.wait(END_S)


def start_actor(node_id: str) -> Any:
    """Return a handle of an actor on the node. It ends with this process, and Ray does not start it again."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    make: Any = ray.remote
    cls = make(num_cpus=0, max_restarts=0, concurrency_groups={"reads": 1, "writes": 1})(AgentPipe)
    return cls.options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    ).remote()
