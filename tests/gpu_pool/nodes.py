"""Nodes of a cluster for tests: real agents behind real pipes on this machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_pool.cluster.backend import ClusterBackend
from gpu_pool.cluster.link import CommandLink
from gpu_pool.cluster.messages import Start
from gpu_pool.cluster.node import Node, NodeTimes
from gpu_pool.local import LocalBackend
from gpu_pool.types import Device, Ready, WorkerCommand, WorkerMessage
from tests.gpu_pool.pools import DEADLINE_S, HANDLERS

FACTS = {"musedrop": "1", "python": "3"}
FAR = ("setsid", "--wait", sys.executable, "-m", "gpu_pool.agent")
"""An agent that the end of the program which leads to it does not end."""
SHELL = ("sh", "-c", f"exec {sys.executable} -m gpu_pool.agent")
RAY_SECRET = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
"""The environment of all processes of a Ray cluster."""


def describe(_: Mapping[str, Any]) -> dict[str, Any]:
    return dict(FACTS)


def make_start(folder: Path, *, workers: int = 2, times: NodeTimes | None = None, text: str = "nonce") -> Start:
    times = times or NodeTimes()
    nonce = folder / "nonce"
    nonce.write_text("nonce")
    return Start(
        handler=f"{HANDLERS}:Obliging",
        options={"cpu": {}, "cuda": {}},
        unloaded_options={},
        cpu_workers=workers,
        cards={"only": [], "exclude": [], "workers": 1},
        log_dir=str(folder / "logs"),
        describe="tests.gpu_pool.nodes:describe",
        shared_file=str(nonce),
        shared_text=text,
        beat_s=times.beat_s,
        fence_s=times.fence_s,
    )


def make_node(
    folder: Path,
    name: str = "box2",
    *,
    facts: Mapping[str, Any] | None = None,
    times: NodeTimes | None = None,
    command: Sequence[str] = SHELL,
    **more: Any,
) -> Node:
    """Return a node whose agent is a program of this machine."""
    folder.mkdir(exist_ok=True)
    log = folder / "link.log"
    return Node(
        name,
        lambda: CommandLink(command, log),
        lambda: make_start(folder, times=times, **more),
        facts=FACTS if facts is None else facts,
        times=times,
    )


class NodeAlone:
    """A node as a backend of its own, whose devices are called as they are there."""

    def __init__(self, node: Node, log_dir: Path, wakeup_fd: int, devices: int) -> None:
        local = LocalBackend([], handler=f"{HANDLERS}:Obliging", handler_options={}, log_dir=log_dir)
        self._prefix, self._cluster = f"{node.name}/", ClusterBackend(local, [node])
        until_s = time.monotonic() + DEADLINE_S
        while len(self._cluster.devices()) < devices:
            assert time.monotonic() < until_s, node.trouble
            self._cluster.wait(0.1, wakeup_fd)

    def devices(self) -> Sequence[Device]:
        return [replace(device, id=device.id.removeprefix(self._prefix)) for device in self._cluster.devices()]

    def spawn(self, device: str, *, unloaded: bool = False) -> None:
        self._cluster.spawn(self._prefix + device, unloaded=unloaded)

    def send(self, device: str, message: WorkerCommand) -> None:
        self._cluster.send(self._prefix + device, message)

    def kill(self, device: str) -> None:
        self._cluster.kill(self._prefix + device)

    def wait(self, timeout_s: float, wakeup_fd: int) -> list[WorkerMessage]:
        return [self._strip(*message) for message in self._cluster.wait(timeout_s, wakeup_fd)]

    def _strip(self, device: str, message: Any) -> WorkerMessage:
        if isinstance(message, Ready):
            message = replace(message, device=message.device.removeprefix(self._prefix))
        return device.removeprefix(self._prefix), message

    def close(self) -> None:
        self._cluster.close()


class RayCluster:
    """A cluster of two nodes in processes of its own."""

    def __init__(self, *words: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu_pool.cluster.ray_cluster", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._popen.stdout
        lines = (line.split() for line in self._popen.stdout)
        self.address = next(words[1] for words in lines if words[:1] == ["address"])

    @property
    def bridge(self) -> tuple[str, ...]:
        """The command that leads to the agent of box2."""
        return (sys.executable, "-m", "gpu_pool.cluster.ray_bridge", "--address", self.address, "--node", "box2")

    def say(self, word: str) -> None:
        assert self._popen.stdin
        self._popen.stdin.write(f"{word}\n")
        self._popen.stdin.flush()

    def end(self) -> None:
        self._popen.communicate(timeout=60)
