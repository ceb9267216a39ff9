"""ClusterBackend: the workers of this machine and of others, as one backend."""

from __future__ import annotations

import selectors
import time
from collections.abc import Mapping, Sequence
from math import inf

from gpu_pool.cluster.link import Link
from gpu_pool.cluster.node import Node
from gpu_pool.local import CLOSE_S, LocalBackend
from gpu_pool.types import Device, WorkerCommand, WorkerMessage


class ClusterBackend:
    """A LocalBackend and nodes. Devices of a node are called NODE/DEVICE; those of this machine as ever."""

    def __init__(self, local: LocalBackend, nodes: Sequence[Node]) -> None:
        self._local = local
        self._nodes: Mapping[str, Node] = {node.name: node for node in nodes}
        self._selector = selectors.DefaultSelector()
        self._selector.register(local, selectors.EVENT_READ)
        self._links: dict[str, Link] = {}

    def devices(self) -> Sequence[Device]:
        return [*self._local.devices(), *(device for node in self._nodes.values() for device in node.devices())]

    def spawn(self, device: str, *, unloaded: bool = False) -> None:
        self._get_home(device).spawn(device, unloaded=unloaded)

    def send(self, device: str, message: WorkerCommand) -> None:
        self._get_home(device).send(device, message)

    def kill(self, device: str) -> None:
        self._get_home(device).kill(device)

    def _get_home(self, device: str) -> LocalBackend | Node:
        return self._nodes.get(device.partition("/")[0], self._local)

    def wait(self, timeout_s: float, wakeup_fd: int) -> list[WorkerMessage]:
        messages = self._serve_nodes()
        if wakeup_fd not in self._selector.get_map():
            self._selector.register(wakeup_fd, selectors.EVENT_READ)
        if not messages:
            self._select(timeout_s)
        return [*messages, *self._local.wait(0.0, wakeup_fd), *self._serve_nodes()]

    def _select(self, timeout_s: float) -> None:
        """Wait for this machine's workers, for a node, or until something is due."""
        now_s = time.monotonic()
        due_s = min((node.deadline_s for node in self._nodes.values()), default=inf)
        self._selector.select(max(0.0, min(timeout_s, self._local.deadline_s - now_s, due_s - now_s)))

    def _serve_nodes(self) -> list[WorkerMessage]:
        messages = [message for node in self._nodes.values() for message in node.serve()]
        for name, node in self._nodes.items():
            self._follow_link(name, node)
        return messages

    def _follow_link(self, name: str, node: Node) -> None:
        """Select on the present link of a node."""
        known = self._links.pop(name, None)
        if known is not None and known is not node.link:
            self._selector.unregister(known)
        if node.link is not None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if node.has_unsent else 0)
            (self._selector.modify if known is node.link else self._selector.register)(node.link, events)
            self._links[name] = node.link

    def close(self) -> None:
        """Kill all workers here, and end the links, so that those of the nodes end."""
        for node in self._nodes.values():
            node.close(CLOSE_S)
        self._local.close()
        self._selector.close()
